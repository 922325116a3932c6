-- A double beyond BIGINT stops the view, as it does in Spark.
-- fields: x float
-- {"x":1e19}
-- gives:
--   columns: n bigint key, records bigint
--   error: view `v`: a number left the range of BIGINT
SELECT CAST(x AS BIGINT) AS n, count(*) AS records FROM records GROUP BY CAST(x AS BIGINT)
