-- gives:
--   v 1:28: two columns are named `a`
--   hint: give one of them another name: `.. AS name`
SELECT nat AS a, gender AS a FROM records
