-- gives:
--   v 1:8: `count` takes one argument
--   hint: write `count(*)` or `count(value)` or `count(DISTINCT value)`
SELECT count(DISTINCT nat, age) AS x FROM records
