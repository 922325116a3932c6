-- gives:
--   v 1:94: windows slide by more than their length
--   hint: Spark refuses this too: records between two windows would be lost
SELECT window.start AS w, count(*) AS n FROM records GROUP BY window(event_time, '1 minute', '2 minutes')
