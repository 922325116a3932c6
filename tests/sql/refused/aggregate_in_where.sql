-- gives:
--   v 1:31: an aggregate is not allowed in WHERE
--   hint: aggregates stand in the SELECT list, and not inside each other
SELECT nat FROM records WHERE count(*) > 1
