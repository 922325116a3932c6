-- gives:
--   v 1:17: `v` reads itself
--   hint: read `records` in one of them
SELECT nat FROM v
