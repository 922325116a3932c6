-- gives:
--   v 1:13: the type INT is not supported in views
--   hint: whole numbers are BIGINT here: write `CAST(x AS BIGINT)`
SELECT CAST(age AS INT) AS n FROM records
