-- gives:
--   v 1:8: `records` has no column `_partition`
--   hint: columns of `records` are pid, nat, gender, age, score, vip, event_time
SELECT _partition AS p FROM records
