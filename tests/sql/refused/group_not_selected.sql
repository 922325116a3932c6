-- gives:
--   v 3:10: SELECT does not have this expression of GROUP BY
--   hint: add it to SELECT: it tells the rows of the view apart
SELECT count(*) AS n
FROM records
GROUP BY gender, nat
