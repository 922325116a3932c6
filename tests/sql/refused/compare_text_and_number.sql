-- gives:
--   v 1:31: string and bigint do not go together
--   hint: cast one side: `CAST(x AS STRING)`, `CAST(x AS BIGINT)`, `CAST(x AS DATE)`
SELECT nat FROM records WHERE nat > 3
