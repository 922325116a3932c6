-- gives:
--   v 1:1: a view is a SELECT
--   hint: write `SELECT .. FROM records`
DELETE FROM records
