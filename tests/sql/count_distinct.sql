-- Distinct values within a group, across drains; NULL does not count. Folded groups count each value once.
-- fields: nat string, device string, age int
-- {"pid":"anna","nat":"DE","device":"a","age":1}
-- {"pid":"anna","nat":"DE","device":"b","age":1}
-- {"pid":"bert","nat":"DE","device":"a","age":2}
-- {"pid":"anna","nat":"FR","device":"a","age":1}
-- {"nat":"FR","device":null}
-- {"pid":"cleo","nat":"FR","device":"c","age":2}
-- {"pid":"anna","nat":"DE","device":"","age":3}
-- gives:
--   columns: nat string key, people bigint, devices bigint, known bigint, ages bigint, records bigint, grown bigint
--   ["DE"]  ["DE",2,3,4,3,4,2]  people 2
--   ["FR"]  ["FR",2,2,2,2,3,1]  people 2
--   fold: ["other",3,4,6,3,7,3]
--   ledger: {"applied":7,"filtered":0,"late":0}
SELECT nat, count(DISTINCT pid) AS people, count(DISTINCT device) AS devices, count(device) AS known,
       count(DISTINCT age) AS ages, count(*) AS records, count(DISTINCT pid) FILTER (WHERE age > 1) AS grown
FROM records GROUP BY nat
