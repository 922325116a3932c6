-- gives:
--   v 1:18: a subquery or table function is not supported in FROM
--   hint: make the inner query a row view of its own and read that: `FROM its_name`
SELECT nat FROM (SELECT nat FROM records) t
