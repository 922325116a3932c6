-- gives:
--   v 1:13: a cast from string to bigint may fail on a value
--   hint: declare the field with that type in [fields]: a value of another type is then a reject
SELECT CAST(nat AS BIGINT) AS n FROM records
