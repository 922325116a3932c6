-- IN and BETWEEN with NULL in the list.
-- fields: nat string, age int
-- {"pid":"a","nat":"DE","age":1}
-- {"pid":"b","nat":"FR","age":2}
-- {"pid":"c","nat":"ES","age":3}
-- {"pid":"d","age":4}
-- gives:
--   columns: nat string key, near boolean key, odd boolean key, middle boolean key, listed boolean key, n bigint
--   ["DE",true,false,false,true]  ["DE",true,false,false,true,1]  people 1
--   ["ES",false,null,true,false]  ["ES",false,null,true,false,1]  people 1
--   ["FR",true,null,true,true]  ["FR",true,null,true,true,1]  people 1
--   [null,null,null,false,true]  [null,null,null,false,true,1]  people 1
--   fold: ["other","other","other","other","other",4]
--   ledger: {"applied":4,"filtered":0,"late":0}
SELECT nat, nat IN ('DE', 'FR') AS near, nat NOT IN ('DE', NULL) AS odd, age BETWEEN 2 AND 3 AS middle,
       age IN (1, 2e0, 4) AS listed, count(*) AS n
FROM records GROUP BY nat, nat IN ('DE', 'FR'), nat NOT IN ('DE', NULL), age BETWEEN 2 AND 3, age IN (1, 2e0, 4)
