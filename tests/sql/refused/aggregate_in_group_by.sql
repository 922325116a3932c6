-- gives:
--   v 1:59: an aggregate is not allowed in GROUP BY
--   hint: aggregates stand in the SELECT list, and not inside each other
SELECT max(age) AS m, count(*) AS n FROM records GROUP BY max(age)
