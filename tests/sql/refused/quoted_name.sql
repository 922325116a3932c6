-- gives:
--   v 1:8: a column's name is not a text
--   hint: write `AS country` without quotes
SELECT nat AS 'country' FROM records
