-- gives:
--   v 1:31: this text is not a timestamp
--   hint: write it as '2026-01-31 12:00:00', in UTC
SELECT nat FROM records WHERE event_time > 'yesterday'
