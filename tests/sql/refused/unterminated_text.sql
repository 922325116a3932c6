-- gives:
--   v 1:37: not Spark SQL: unterminated string literal
SELECT nat FROM records WHERE nat = 'DE
