-- Functions of texts. Positions count characters from 1; negative ones from the end.
-- fields: s string
-- {"s":"  Grüße, Welt "}
-- {"s":"straße"}
-- {"s":""}
-- {}
-- gives:
--   columns: s string, up string, low string, cut string, lcut string, rcut string, n bigint, mid string, tail string, head string, loud string, asked string, plain string, starts boolean, ends boolean, holds boolean, alike boolean, unlike boolean
--   0/0  ["  Grüße, Welt ","  GRÜSSE, WELT ","  grüße, welt ","Grüße, Welt","Grüße, Welt ","  Grüße, Welt",14," Gr","lt ","  ","  Grüße, Welt !7","  Grüße, Welt ?","  Grüsse, Welt ",false,false,false,false,true]
--   0/1  ["straße","STRASSE","straße","straße","straße","straße",6,"tra","aße","st","straße!7","straße?","strasse",true,true,true,true,false]
--   0/2  ["","","","","","",0,"","","","!7","?","",false,false,false,false,true]
--   0/3  [null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null]
--   ledger: {"applied":4,"filtered":0,"late":0}
SELECT s, upper(s) AS up, lower(s) AS low, trim(s) AS cut, ltrim(s) AS lcut, rtrim(s) AS rcut, char_length(s) AS n, substring(s, 2, 3) AS mid, substr(s, -3) AS tail,
       substring(s, 0, 2) AS head, concat(s, '!', 7) AS loud, s || '?' AS asked, replace(s, 'ß', 'ss') AS plain, startswith(s, 's') AS starts, endswith(s, 'e') AS ends,
       contains(s, 'ra') AS holds, s LIKE '%ß_' AS alike, s NOT LIKE 's%' AS unlike
FROM records
