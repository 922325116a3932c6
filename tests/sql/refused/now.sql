-- gives:
--   v 1:44: `now` is not supported in views
--   hint: a view depends on its records only, so that a replay gives the same rows; use `event_time`
SELECT nat FROM records WHERE event_time > now()
