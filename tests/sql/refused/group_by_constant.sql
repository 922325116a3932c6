-- gives:
--   v 1:54: this groups by a constant
--   hint: leave GROUP BY out for one row over all records
SELECT 'x' AS x, count(*) AS n FROM records GROUP BY 'x'
