-- gives:
--   v 1:13: `age` is neither grouped by nor inside an aggregate
--   hint: add it to GROUP BY, or take one value of the group: `max(age)`
SELECT nat, age, count(*) AS n FROM records GROUP BY nat
