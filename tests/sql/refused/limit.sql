-- gives:
--   v 1:53: LIMIT is not supported in views
--   hint: a view holds every group; a chart shows the largest with `top`
SELECT nat, count(*) AS n FROM records GROUP BY nat LIMIT 3
