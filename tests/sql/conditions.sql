-- count_if, bool_and, bool_or and FILTER.
-- fields: nat string, vip bool, age int
-- {"nat":"DE","vip":true,"age":10}
-- {"nat":"DE","vip":false,"age":30}
-- {"nat":"DE","age":50}
-- {"nat":"FR","vip":true}
-- {"nat":"ES"}
-- gives:
--   columns: nat string key, vips bigint, all_vip boolean, any_vip boolean, older boolean, grown bigint, age_of_others bigint
--   ["DE"]  ["DE",1,false,true,true,2,80]  people 0
--   ["ES"]  ["ES",0,null,null,null,0,null]  people 0
--   ["FR"]  ["FR",1,true,true,null,0,null]  people 0
--   fold: ["other",2,false,true,true,2,80]
--   ledger: {"applied":5,"filtered":0,"late":0}
SELECT nat, count_if(vip) AS vips, bool_and(vip) AS all_vip, bool_or(vip) AS any_vip, every(age > 5) AS older,
       count(*) FILTER (WHERE age >= 30) AS grown, sum(age) FILTER (WHERE vip IS NOT TRUE) AS age_of_others
FROM records GROUP BY nat
