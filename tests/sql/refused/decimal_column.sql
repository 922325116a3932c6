-- gives:
--   v 1:8: a column of type decimal is not supported in views
--   hint: cast it: `CAST(NULL AS STRING)`, `CAST(0.5 AS DOUBLE)`
SELECT 0.5 AS x FROM records
