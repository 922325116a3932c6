-- gives:
--   v 1:8: `collect_list` is not supported in views
--   hint: views hold single values; count them with `count(DISTINCT x)`
SELECT collect_list(nat) AS c FROM records
