-- gives:
--   v 1:8: DISTINCT is not supported in `sum` here
--   hint: write `count(DISTINCT x)`; min and max need no DISTINCT
SELECT sum(DISTINCT age) AS x FROM records
