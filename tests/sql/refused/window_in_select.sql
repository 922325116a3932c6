-- gives:
--   v 1:8: `window` stands in GROUP BY only
--   hint: add `GROUP BY window(event_time, '1 minute')`
SELECT window(event_time, '1 minute') AS w FROM records
