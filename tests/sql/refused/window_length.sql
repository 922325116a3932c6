-- gives:
--   v 1:82: '1 month' is not a window's length: months and years have no fixed length
--   hint: write a fixed length, such as '30 seconds', '1 minute', '1 hour 30 minutes' or '1 day'
SELECT window.start AS w, count(*) AS n FROM records GROUP BY window(event_time, '1 month')
