-- gives:
--   v 1:17: `default.records` is not a relation here
--   hint: a view reads `records` or a row view, without a database name
SELECT nat FROM default.records
