-- gives:
--   v 1:36: not Spark SQL: expected: an expression, found: EOF
SELECT nat FROM records WHERE age >
