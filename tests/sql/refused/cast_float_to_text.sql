-- gives:
--   v 1:13: a cast from double to string is not supported in views
--   hint: the two engines write such values differently; keep the type
SELECT CAST(score AS STRING) AS s FROM records
