-- gives:
--   v 1:37: this number does not fit BIGINT or DOUBLE
--   hint: whole numbers reach from -9223372036854775808 to 9223372036854775807
SELECT nat FROM records WHERE age < 99999999999999999999
