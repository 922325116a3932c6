-- gives:
--   v 1:53: ORDER BY is not supported in views
--   hint: rows of a view have no order; a chart sorts with `top`
SELECT nat, count(*) AS n FROM records GROUP BY nat ORDER BY n
