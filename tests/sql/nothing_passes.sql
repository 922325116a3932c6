-- A filter that lets nothing through gives no row, and the ledger says so.
-- fields: age int
-- {"pid":"anna","age":20}
-- {"pid":"bert"}
-- gives:
--   columns: users bigint
--   ledger: {"applied":0,"filtered":2,"late":0}
SELECT count(*) AS users FROM records WHERE age > 100
