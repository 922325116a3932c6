-- gives:
--   v 1:31: `records` has no column `phone`
--   hint: columns of `records` are pid, nat, gender, age, score, vip, event_time
SELECT nat FROM records WHERE phone = 1
