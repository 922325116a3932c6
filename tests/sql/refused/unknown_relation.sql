-- gives:
--   v 1:17: there is no relation `recrods`
--   hint: did you mean `records`?
SELECT nat FROM recrods
