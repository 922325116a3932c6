-- gives:
--   v 1:8: `records` has no column `nta`
--   hint: did you mean `nat`?
SELECT nta FROM records
