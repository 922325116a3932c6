-- CASE in both forms, with and without ELSE; if and coalesce.
-- fields: nat string, age int
-- {"nat":"DE","age":17}
-- {"nat":"DE","age":30}
-- {"nat":"FR","age":70}
-- {"nat":"FR"}
-- {"age":5}
-- gives:
--   columns: stage string key, code bigint key, known string key, place string key, users bigint
--   ["adult",1,"age","DE"]  ["adult",1,"age","DE",1]  people 0
--   ["minor",1,"age","DE"]  ["minor",1,"age","DE",1]  people 0
--   ["minor",null,"age","none"]  ["minor",null,"age","none",1]  people 0
--   ["senior or unknown",2,"age","FR"]  ["senior or unknown",2,"age","FR",1]  people 0
--   ["senior or unknown",2,"no age","FR"]  ["senior or unknown",2,"no age","FR",1]  people 0
--   fold: ["other","other","other","other",5]
--   ledger: {"applied":5,"filtered":0,"late":0}
SELECT CASE WHEN age < 18 THEN 'minor' WHEN age < 65 THEN 'adult' ELSE 'senior or unknown' END AS stage,
       CASE nat WHEN 'DE' THEN 1 WHEN 'FR' THEN 2 END AS code, if(age IS NULL, 'no age', 'age') AS known,
       coalesce(nat, 'none') AS place, count(*) AS users
FROM records GROUP BY 1, 2, 3, 4
