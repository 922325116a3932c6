-- gives:
--   v 1:49: GROUP BY names a place that SELECT does not have
--   hint: SELECT has 2 columns
SELECT nat, count(*) AS n FROM records GROUP BY 3
