-- No record, no row: a group begins with its first record, the one without GROUP BY too.
-- fields: nat string
-- lateness: 10s
-- gives:
--   columns: users bigint
--   ledger: {"applied":0,"filtered":0,"late":0}
SELECT count(*) AS users FROM records
