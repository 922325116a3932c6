-- gives:
--   v 1:8: `sum` needs a number, and this is a string
--   hint: write `sum(number)`
SELECT sum(nat) AS x FROM records
