-- gives:
--   v 1:13: `max` would keep a person's pid in a group's row
--   hint: count people with `count(DISTINCT pid)`: a pid in such a row could not be erased
SELECT age, max(pid) AS someone, count(DISTINCT pid) AS people FROM records GROUP BY age
