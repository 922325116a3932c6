-- Arithmetic on BIGINT is checked, too.
-- fields: n int
-- {"n":9223372036854775807}
-- gives:
--   columns: next bigint key, records bigint
--   error: view `v`: a number left the range of BIGINT
SELECT n + 1 AS next, count(*) AS records FROM records GROUP BY n + 1
