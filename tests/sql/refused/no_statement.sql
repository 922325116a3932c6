-- gives:
--   v 1:1: there is no SQL statement
--   hint: write `SELECT .. FROM records`

