-- WHERE looks at records, not at rows: a newer record that is left out does not take the row away.
-- fields: age int
-- {"pid":"anna","age":20}
-- {"pid":"anna","age":10}
-- {"pid":"bert","age":5}
-- gives:
--   columns: pid string key, age bigint
--   anna  ["anna",20]
--   ledger: {"applied":1,"filtered":2,"late":0}
SELECT pid, age FROM records WHERE age >= 18
