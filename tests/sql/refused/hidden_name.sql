-- gives:
--   v 1:15: a column's name cannot be `_key`
--   hint: names are lower-case letters, digits and `_`, and begin with a letter
SELECT nat AS _key FROM records
