-- gives:
--   v 1:38: subqueries are not supported in views
--   hint: make the inner query a row view of its own and read that: `FROM its_name`
SELECT nat FROM records WHERE age > (SELECT avg(age) FROM records)
