-- gives:
--   v 1:40: a backslash in a text is not supported in views
--   hint: Spark reads it as an escape; write the character itself
SELECT nat FROM records WHERE nat LIKE 'a\_%'
