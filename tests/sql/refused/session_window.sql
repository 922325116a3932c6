-- gives:
--   v 1:44: `session_window` is not supported in views
--   hint: windows are of fixed length: `window(event_time, '1 minute')`
SELECT count(*) AS n FROM records GROUP BY session_window(event_time, '5 minutes')
