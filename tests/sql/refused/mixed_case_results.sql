-- gives:
--   v 1:34: bigint and string do not go together
--   hint: cast one side: `CAST(x AS STRING)`, `CAST(x AS BIGINT)`, `CAST(x AS DATE)`
SELECT CASE WHEN vip THEN 1 ELSE 'no' END AS x FROM records
