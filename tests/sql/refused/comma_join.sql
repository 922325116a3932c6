-- gives:
--   v 1:28: joins are not supported in views
--   hint: a view reads one relation, `records` or a row view; declare the fields you need and they all stand in `records`
SELECT nat FROM records a, records b
