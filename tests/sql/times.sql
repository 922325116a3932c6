-- Parts and units of times, in UTC, before 1970 too; weeks begin on Monday, dayofweek 1 is Sunday.
-- fields: which string
-- view: timed AS SELECT which, CASE which WHEN 'epoch' THEN TIMESTAMP '1969-12-31 23:59:59.999999' ELSE event_time END AS t FROM records
-- {"at":"13:14:15.678","which":"event"}
-- {"at":"0","which":"epoch"}
-- gives:
--   columns: which string key, y bigint key, q bigint key, m bigint key, d bigint key, dow bigint key, doy bigint key, h bigint key, mi bigint key, s bigint key, week timestamp key, month timestamp key, hour timestamp key, ey bigint key, before boolean key, t timestamp
--   ["epoch",1969,4,12,31,4,365,23,59,59,"1969-12-29T00:00:00Z","1969-12-01T00:00:00Z","1969-12-31T23:00:00Z",true]  ["epoch",1969,4,12,31,4,365,23,59,59,"1969-12-29T00:00:00Z","1969-12-01T00:00:00Z","1969-12-31T23:00:00Z",1969,true,"1969-12-31T23:59:59.999999Z"]  people 0
--   ["event",2026,1,1,1,5,1,13,14,15,"2025-12-29T00:00:00Z","2026-01-01T00:00:00Z","2026-01-01T13:00:00Z",false]  ["event",2026,1,1,1,5,1,13,14,15,"2025-12-29T00:00:00Z","2026-01-01T00:00:00Z","2026-01-01T13:00:00Z",2026,false,"2026-01-01T13:14:15.678Z"]  people 0
--   fold: ["other","other","other","other","other","other","other","other","other","other","other","other","other","other","other","2026-01-01T13:14:15.678Z"]
SELECT which, year(t) AS y, quarter(t) AS q, month(t) AS m, day(t) AS d, dayofweek(t) AS dow, dayofyear(t) AS doy, hour(t) AS h, minute(t) AS mi, second(t) AS s,
       date_trunc('WEEK', t) AS week, date_trunc('month', t) AS month, date_trunc('hour', t) AS hour, EXTRACT(YEAR FROM t) AS ey, t < '2026-01-01 00:00:00' AS before, max(t) AS t
FROM timed
GROUP BY which, year(t), quarter(t), month(t), day(t), dayofweek(t), dayofyear(t), hour(t), minute(t), second(t),
         date_trunc('week', t), date_trunc('mon', t), date_trunc('hour', t), EXTRACT(YEAR FROM t), t < TIMESTAMP '2026-01-01 00:00:00'
