-- gives:
--   v 1:13: this column has no name
--   hint: give it one: `.. AS name`
SELECT nat, count(*) FROM records GROUP BY nat
