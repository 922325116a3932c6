-- gives:
--   v 1:8: `*` is not supported in views
--   hint: name the columns: what a store gets is written down, not implied
SELECT * FROM records
