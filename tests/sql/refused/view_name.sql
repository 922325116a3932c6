-- view: Bad AS SELECT nat FROM records
-- gives:
--   Bad 1:1: a view's name cannot be `Bad`
--   hint: names are lower-case letters, digits and `_`, and begin with a letter
SELECT nat FROM records
