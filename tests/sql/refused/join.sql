-- gives:
--   v 1:29: joins are not supported in views
--   hint: a view reads one relation, `records` or a row view; declare the fields you need and they all stand in `records`
SELECT a.nat FROM records a JOIN records b ON a.pid = b.pid
