-- gives:
--   v 4:1: HAVING is not supported in views
--   hint: filter records with WHERE; small groups are held back from charts by `k` in [privacy]
SELECT nat, count(*) AS n
FROM records
GROUP BY nat
HAVING count(*) > 3
