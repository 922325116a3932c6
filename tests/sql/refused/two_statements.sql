-- gives:
--   v 2:1: a view is one statement
--   hint: give the second one a view of its own
SELECT nat FROM records;
SELECT nat FROM records
