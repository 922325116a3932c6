-- gives:
--   v 1:8: `nat` has no parts
--   hint: declare the inner value as a field: `from = "a.b"`
SELECT nat.code AS c FROM records
