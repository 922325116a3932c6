-- gives:
--   v 1:66: intervals are not supported in views
--   hint: cut times with `date_trunc('hour', event_time)` or `window(event_time, '1 hour')`
SELECT nat FROM records WHERE event_time > event_time - INTERVAL '1' HOUR
