-- gives:
--   v 1:8: there is no function `uper` in views
--   hint: did you mean `upper`?
SELECT uper(nat) AS n FROM records
