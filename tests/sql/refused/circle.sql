-- view: other AS SELECT nat FROM v
-- gives:
--   v 1:17: the view `other` that it reads has an error
--   hint: mend `other` first
--   other 1:17: `v` is read by a view that it reads
--   hint: read `records` in one of them
SELECT nat FROM other
