-- view: records AS SELECT nat FROM records
-- gives:
--   records 1:1: `records` is the relation of all records
--   hint: give the view another name
SELECT nat FROM records
