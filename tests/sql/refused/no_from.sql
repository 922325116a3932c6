-- gives:
--   v 1:1: FROM is missing
--   hint: a view reads `records` or a row view
SELECT 1 AS one
