-- gives:
--   v 1:8: a number with a decimal point is a DECIMAL in Spark, and views have none
--   hint: write it with an exponent, which makes it a double: `5e-1` instead of `0.5`
SELECT age * 1.5 AS x FROM records
