-- view: v AS SELECT nat FROM records
-- gives:
--   v 1:1: another view has the same name
--   hint: give one of them another name
SELECT nat FROM records
