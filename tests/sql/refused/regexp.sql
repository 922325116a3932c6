-- gives:
--   v 1:31: `nat RLIKE 'D.'` is not supported in views
--   hint: the reference lists the functions and operators that views take
SELECT nat FROM records WHERE nat RLIKE 'D.'
