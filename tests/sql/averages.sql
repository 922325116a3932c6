-- avg of whole numbers is a double; an average of nothing is NULL; deviations of one value are NULL.
-- fields: nat string, age int
-- {"nat":"DE","age":1}
-- {"nat":"DE","age":2}
-- {"nat":"DE","age":4}
-- {"nat":"FR","age":10}
-- {"nat":"ES"}
-- {"nat":"IT","age":-3}
-- {"nat":"IT","age":3}
-- gives:
--   columns: nat string key, mean double, same double, sd double, sd_pop double, var double, v_pop double, shown double
--   ["DE"]  ["DE",2.3333333333333335,2.3333333333333335,1.5275252316519465,1.247219128924647,2.333333333333333,1.5555555555555554,2.33]  people 0
--   ["ES"]  ["ES",null,null,null,null,null,null,null]  people 0
--   ["FR"]  ["FR",10.0,10.0,null,0.0,null,0.0,10.0]  people 0
--   ["IT"]  ["IT",0.0,0.0,4.242640687119285,3.0,18.0,9.0,0.0]  people 0
--   fold: ["other",2.8333333333333335,2.8333333333333335,4.262237284181474,3.8908725099762504,18.166666666666664,15.138888888888888,2.83]
--   ledger: {"applied":7,"filtered":0,"late":0}
SELECT nat, avg(age) AS mean, mean(age) AS same, stddev(age) AS sd, stddev_pop(age) AS sd_pop,
       variance(age) AS var, var_pop(age) AS v_pop, round(avg(age), 2) AS shown
FROM records GROUP BY nat
