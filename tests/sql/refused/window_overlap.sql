-- gives:
--   v 1:91: a record would fall into more than 1440 windows
--   hint: slide by a larger step
SELECT window.start AS w, count(*) AS n FROM records GROUP BY window(event_time, '1 day', '1 second')
