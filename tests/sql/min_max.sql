-- min and max of every type with an order.
-- fields: name string, age int, score float
-- {"at":"00:00:05","name":"b","age":-1,"score":-0.5}
-- {"at":"00:00:01","name":"","age":9223372036854775807,"score":1e300}
-- {"at":"00:00:09.250","name":"é","age":-9223372036854775808,"score":0.0}
-- {}
-- gives:
--   columns: first_name string, last_name string, low bigint, high bigint, worst double, best double, since timestamp, until timestamp, day date
--   []  ["","é","-9223372036854775808","9223372036854775807",-0.5,1e+300,"2026-01-01T00:00:00Z","2026-01-01T00:00:09.250Z","2026-01-01"]  people 0
--   fold: ["","é","-9223372036854775808","9223372036854775807",-0.5,1e+300,"2026-01-01T00:00:00Z","2026-01-01T00:00:09.250Z","2026-01-01"]
--   ledger: {"applied":4,"filtered":0,"late":0}
SELECT min(name) AS first_name, max(name) AS last_name, min(age) AS low, max(age) AS high, min(score) AS worst,
       max(score) AS best, min(event_time) AS since, max(event_time) AS until, max(to_date(event_time)) AS day
FROM records
