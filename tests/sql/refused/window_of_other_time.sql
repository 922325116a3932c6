-- gives:
--   v 1:70: windows are over `event_time`
--   hint: the watermark follows `event_time`; set it with `[pipeline] event_time`
SELECT window.start AS w, count(*) AS n FROM records GROUP BY window(age, '1 minute')
