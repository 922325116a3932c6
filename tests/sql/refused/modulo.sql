-- gives:
--   v 1:8: `%` needs whole numbers and a positive number on its right
--   hint: Spark stops on zero: write for example `age % 10`
SELECT age % age AS x FROM records
