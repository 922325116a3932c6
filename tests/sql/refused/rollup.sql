-- gives:
--   v 1:65: `ROLLUP (nat, gender)` is not supported in views
--   hint: the reference lists the functions and operators that views take
SELECT nat, gender, count(*) AS n FROM records GROUP BY ROLLUP (nat, gender)
