-- gives:
--   v 1:12: an aggregate is not allowed in an aggregate
--   hint: aggregates stand in the SELECT list, and not inside each other
SELECT sum(count(*)) AS n FROM records
