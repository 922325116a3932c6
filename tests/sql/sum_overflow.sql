-- A sum beyond BIGINT stops the view, as it does in Spark; the message does not quote it.
-- fields: nat string, n int
-- {"nat":"DE","n":9223372036854775807}
-- {"nat":"DE","n":1}
-- gives:
--   columns: nat string key, total bigint
--   error: view `v`: a number left the range of BIGINT
SELECT nat, sum(n) AS total FROM records GROUP BY nat
