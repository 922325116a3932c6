-- gives:
--   v 1:8: SELECT DISTINCT is not supported in views
--   hint: group by the columns instead: `SELECT a, count(*) AS n .. GROUP BY a`
SELECT DISTINCT nat FROM records
