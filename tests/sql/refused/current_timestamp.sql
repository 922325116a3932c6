-- gives:
--   v 1:8: `current_timestamp` is not supported in views
--   hint: a view depends on its records only, so that a replay gives the same rows; use `event_time`
SELECT current_timestamp() AS t FROM records
