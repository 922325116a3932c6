-- gives:
--   v 1:8: `rand` is not supported in views
--   hint: a view depends on its records only, so that a replay gives the same rows
SELECT rand() AS r FROM records
