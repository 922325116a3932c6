-- view: counts AS SELECT nat, count(*) AS n FROM records GROUP BY nat
-- gives:
--   v 1:15: `counts` is an aggregate view, and views read `records` or a row view
--   hint: aggregate `records` here too, with the grouping you need
SELECT n FROM counts
