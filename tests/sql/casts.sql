-- Casts that cannot fail on a value of their type.
-- fields: n int, x float, ok bool
-- {"at":"13:14:15.678","n":42,"x":-2.9,"ok":true}
-- {"at":"00:00:00","n":-9223372036854775808,"x":1e15,"ok":false}
-- {"at":"0"}
-- gives:
--   columns: n bigint key, text string key, wide double key, cut bigint key, word string key, bit bigint key, day date key, midnight timestamp key, day_text string key, records bigint
--   [-9223372036854775808,"-9223372036854775808",-9.223372036854776e18,1000000000000000,"false",0,"2026-01-01","2026-01-01T00:00:00Z","2026-01-01"]  ["-9223372036854775808","-9223372036854775808",-9.223372036854776e+18,1000000000000000,"false",0,"2026-01-01","2026-01-01T00:00:00Z","2026-01-01",1]  people 0
--   [42,"42",42.0,-2,"true",1,"2026-01-01","2026-01-01T00:00:00Z","2026-01-01"]  [42,"42",42.0,-2,"true",1,"2026-01-01","2026-01-01T00:00:00Z","2026-01-01",1]  people 0
--   [null,null,null,null,null,null,"1970-01-01","1970-01-01T00:00:00Z","1970-01-01"]  [null,null,null,null,null,null,"1970-01-01","1970-01-01T00:00:00Z","1970-01-01",1]  people 0
--   fold: ["other","other","other","other","other","other","other","other","other",3]
--   ledger: {"applied":3,"filtered":0,"late":0}
SELECT n, CAST(n AS STRING) AS text, CAST(n AS DOUBLE) AS wide, CAST(x AS BIGINT) AS cut, CAST(ok AS STRING) AS word, CAST(ok AS BIGINT) AS bit,
       CAST(event_time AS DATE) AS day, CAST(CAST(event_time AS DATE) AS TIMESTAMP) AS midnight, CAST(CAST(event_time AS DATE) AS STRING) AS day_text,
       count(*) AS records
FROM records
GROUP BY n, CAST(n AS STRING), CAST(n AS DOUBLE), CAST(x AS BIGINT), CAST(ok AS STRING), CAST(ok AS BIGINT),
         CAST(event_time AS DATE), CAST(CAST(event_time AS DATE) AS TIMESTAMP), CAST(CAST(event_time AS DATE) AS STRING)
