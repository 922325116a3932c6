-- IS TRUE, IS NOT DISTINCT FROM and <=> take NULL as a value.
-- fields: nat string, vip bool
-- {"pid":"a","nat":"DE","vip":true}
-- {"pid":"b","nat":"DE","vip":false}
-- {"pid":"c","nat":"DE"}
-- {"pid":"d","vip":true}
-- gives:
--   columns: is_true boolean key, not_true boolean key, no_nat boolean key, unknown boolean key, elsewhere boolean key, n bigint
--   [false,true,false,false,false]  [false,true,false,false,false,1]  people 1
--   [false,true,false,true,false]  [false,true,false,true,false,1]  people 1
--   [true,false,false,false,false]  [true,false,false,false,false,1]  people 1
--   [true,false,true,false,true]  [true,false,true,false,true,1]  people 1
--   fold: ["other","other","other","other","other",4]
--   ledger: {"applied":4,"filtered":0,"late":0}
SELECT vip IS TRUE AS is_true, vip IS NOT TRUE AS not_true, nat <=> NULL AS no_nat, vip IS NULL AS unknown,
       nat IS DISTINCT FROM 'DE' AS elsewhere, count(*) AS n
FROM records
GROUP BY vip IS TRUE, vip IS NOT TRUE, nat <=> NULL, vip IS NULL, nat IS DISTINCT FROM 'DE'
