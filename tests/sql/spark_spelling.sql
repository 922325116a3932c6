-- Names in any case, back quotes, qualified columns, comments, double-quoted texts and a semicolon.
-- fields: nat string, age int
-- {"nat":"DE","age":1}
-- {"nat":"FR","age":2}
-- gives:
--   columns: nat string key, users bigint
--   ["DE"]  ["DE",1]  people 0
--   fold: ["other",1]
--   ledger: {"applied":1,"filtered":1,"late":0}
select r.NAT as nat, /* all of them */ COUNT(*) as `users` -- counted
from Records AS r where R.age >= 1 and nat != "FR" group by r.nat;
