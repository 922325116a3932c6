-- Windows of a minute own their start and not their end, and are aligned to 1970.
-- fields: age int
-- {"pid":"a","at":"00:00:00","age":20}
-- {"pid":"b","at":"00:00:59.999","age":30}
-- {"pid":"c","at":"00:01:00","age":40}
-- {"pid":"d","at":"00:01:05"}
-- gives:
--   columns: minute timestamp key, until timestamp key, average_age double, users bigint
--   ["2026-01-01T00:00:00Z"]  ["2026-01-01T00:00:00Z","2026-01-01T00:01:00Z",25.0,2]  people 2
--   ["2026-01-01T00:01:00Z"]  ["2026-01-01T00:01:00Z","2026-01-01T00:02:00Z",40.0,2]  people 2
--   fold: ["other","other",30.0,4]
--   ledger: {"applied":4,"filtered":0,"late":0}
SELECT window.start AS minute, window.end AS until, avg(age) AS average_age, count(*) AS users
FROM records GROUP BY window(event_time, '1 minute')
