-- gives:
--   v 1:44: SELECT does not have this expression of GROUP BY
--   hint: add `window.start AS window_start` to SELECT
SELECT count(*) AS n FROM records GROUP BY window(event_time, '1 minute')
