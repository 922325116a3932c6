-- gives:
--   v 1:31: subqueries are not supported in views
--   hint: make the inner query a row view of its own and read that: `FROM its_name`
SELECT nat FROM records WHERE pid IN (SELECT pid FROM records)
