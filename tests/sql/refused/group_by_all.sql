-- gives:
--   v 1:40: GROUP BY ALL, ROLLUP, CUBE or TOTALS is not supported in views
--   hint: name the grouping expressions; write a view for each grouping
SELECT nat, count(*) AS n FROM records GROUP BY ALL
