-- gives:
--   v 1:1: WITH is not supported in views
--   hint: make the inner query a row view of its own and read that: `FROM its_name`
WITH a AS (SELECT nat FROM records) SELECT nat FROM a
