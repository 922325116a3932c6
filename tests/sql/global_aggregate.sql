-- Without GROUP BY there is one row, with the key `[]`.
-- fields: age int, score float
-- {"pid":"anna","age":20,"score":0.5}
-- {"pid":"bert","age":null,"score":0.25}
-- {"pid":"cleo","age":41}
-- gives:
--   columns: records bigint, ages bigint, total bigint, mean double, youngest bigint, oldest bigint, score double, mean_score double
--   []  [3,2,61,30.5,20,41,0.75,0.375]  people 3
--   fold: [3,2,61,30.5,20,41,0.75,0.375]
--   ledger: {"applied":3,"filtered":0,"late":0}
SELECT count(*) AS records, count(age) AS ages, sum(age) AS total, avg(age) AS mean,
       min(age) AS youngest, max(age) AS oldest, sum(score) AS score, avg(score) AS mean_score
FROM records
