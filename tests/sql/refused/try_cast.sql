-- gives:
--   v 1:17: this form of cast is not supported in views
--   hint: write `CAST(x AS BIGINT)`; casts that can fail on a value are refused, as Spark stops on them
SELECT TRY_CAST(nat AS BIGINT) AS n FROM records
