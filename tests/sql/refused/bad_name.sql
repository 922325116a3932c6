-- gives:
--   v 1:15: a column's name cannot be `Nation`
--   hint: names are lower-case letters, digits and `_`, and begin with a letter
SELECT nat AS Nation FROM records
