-- gives:
--   v 1:95: a view has one kind of windows
--   hint: write a view for each window length
SELECT window.start AS w, count(*) AS n FROM records GROUP BY window(event_time, '1 minute'), window(event_time, '1 hour')
