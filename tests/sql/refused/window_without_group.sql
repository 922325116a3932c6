-- gives:
--   v 1:8: these windows are not grouped by
--   hint: add `GROUP BY window(event_time, '1 minute')`
SELECT window.start AS w FROM records
