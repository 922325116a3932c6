-- gives:
--   v 1:18: this form of a call is not supported in views
--   hint: write plain arguments: `trim(x)`, `floor(x)`, `substring(x, 1, 2)`
SELECT substring(nat) AS x FROM records
