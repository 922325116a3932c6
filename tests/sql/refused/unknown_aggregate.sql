-- gives:
--   v 1:13: there is no function `cuont` in views
--   hint: did you mean `count`?
SELECT nat, cuont(*) AS n FROM records GROUP BY nat
