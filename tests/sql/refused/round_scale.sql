-- gives:
--   v 1:8: `round` does not take these arguments
--   hint: write `round(number, 2)`, with 0 to 15 decimals
SELECT round(score, age) AS x FROM records
