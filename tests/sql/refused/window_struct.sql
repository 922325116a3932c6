-- gives:
--   v 1:8: `window` is not a single value
--   hint: select `window.start AS window_start` or `window.end AS window_end`
SELECT window, count(*) AS n FROM records GROUP BY window(event_time, '1 minute')
