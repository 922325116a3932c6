-- Whole numbers stay whole but for `/`; try_divide and nullif give NULL where Spark would stop.
-- fields: a int, b int, x float
-- {"a":7,"b":2,"x":0.5}
-- {"a":-7,"b":0,"x":-0.0}
-- {"b":3}
-- gives:
--   columns: a bigint key, b bigint key, plus bigint key, minus bigint key, times bigint key, half double key, rest bigint key, negated bigint key, tried double key, careful double key, twice double key, more double key, zero boolean key, size bigint key
--   [-7,0,-7,-7,0,-3.5,-1,7,null,null,0.0,0.5,true,7]  [-7,0,-7,-7,0,-3.5,-1,7,null,null,0.0,0.5,true,7]  people 0
--   [7,2,9,5,14,3.5,1,-7,3.5,3.5,1.0,1.0,false,7]  [7,2,9,5,14,3.5,1,-7,3.5,3.5,1.0,1.0,false,7]  people 0
--   [null,3,null,null,null,null,null,null,null,null,null,null,null,null]  [null,3,null,null,null,null,null,null,null,null,null,null,null,null]  people 0
--   fold: ["other","other","other","other","other","other","other","other","other","other","other","other","other","other"]
--   ledger: {"applied":3,"filtered":0,"late":0}
SELECT a, b, a + b AS plus, a - b AS minus, a * b AS times, a / 2 AS half, a % 3 AS rest, -a AS negated,
       try_divide(a, b) AS tried, a / nullif(b, 0) AS careful, x * 2 AS twice, x + 0.5 AS more, x = 0 AS zero, abs(a) AS size
FROM records GROUP BY a, b, a + b, a - b, a * b, a / 2, a % 3, -a, try_divide(a, b), a / nullif(b, 0), x * 2, x + 0.5, x = 0, abs(a)
