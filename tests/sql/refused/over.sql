-- gives:
--   v 1:13: window functions (OVER) are not supported in views
--   hint: group instead; time windows are `GROUP BY window(event_time, '1 minute')`
SELECT nat, count(*) OVER (PARTITION BY nat) AS n FROM records
