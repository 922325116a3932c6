-- round rounds halves away from zero by the decimal text; floor and ceil give whole numbers.
-- fields: x float
-- {"x":2.675}
-- {"x":-2.5}
-- {"x":0.5}
-- {"x":1e18}
-- {}
-- gives:
--   columns: x double key, whole double key, cents double key, below bigint key, above bigint key, root double key
--   [-2.5,-3.0,-2.5,-3,-2,2.5]  [-2.5,-3.0,-2.5,-3,-2,2.5]  people 0
--   [0.5,1.0,0.5,0,1,0.5]  [0.5,1.0,0.5,0,1,0.5]  people 0
--   [1e18,1e18,1e18,1000000000000000000,1000000000000000000,1e18]  [1e+18,1e+18,1e+18,"1000000000000000000","1000000000000000000",1e+18]  people 0
--   [2.675,3.0,2.68,2,3,2.675]  [2.675,3.0,2.68,2,3,2.675]  people 0
--   [null,null,null,null,null,null]  [null,null,null,null,null,null]  people 0
--   fold: ["other","other","other","other","other","other"]
--   ledger: {"applied":5,"filtered":0,"late":0}
SELECT x, round(x) AS whole, round(x, 2) AS cents, floor(x) AS below, ceil(x) AS above, sqrt(x * x) AS root
FROM records GROUP BY x, round(x), round(x, 2), floor(x), ceil(x), sqrt(x * x)
