-- gives:
--   v 1:25: combining queries is not supported in views
--   hint: write one view for each query
SELECT nat FROM records UNION ALL SELECT nat FROM records
