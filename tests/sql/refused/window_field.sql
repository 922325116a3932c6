-- gives:
--   v 1:8: a window has no `begin`
--   hint: it has `window.start` and `window.end`
SELECT window.begin AS w, count(*) AS n FROM records GROUP BY window(event_time, '1 minute')
