-- gives:
--   v 1:31: a condition is needed here, and this is a bigint
--   hint: compare it: `x = 'a'`, `x > 0`, `x IS NOT NULL`
SELECT nat FROM records WHERE age
