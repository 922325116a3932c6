-- gives:
--   v 1:8: groups of one person need the pid as it is, in a column `pid`
--   hint: write `pid`: a person's rows are found and erased by it
SELECT pid AS person, count(*) AS n FROM records GROUP BY pid
