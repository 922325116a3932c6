-- gives:
--   v 1:8: a column of type void is not supported in views
--   hint: cast it: `CAST(NULL AS STRING)`, `CAST(0.5 AS DOUBLE)`
SELECT NULL AS x FROM records
