-- gives:
--   v 1:8: this division may be by zero
--   hint: Spark stops on it: write `try_divide(a, b)` or `a / nullif(b, 0)`, which give NULL
SELECT age / age AS x FROM records
