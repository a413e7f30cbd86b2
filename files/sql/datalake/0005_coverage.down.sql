-- 0005_coverage: what was listened to is known to the ingestors as long as they keep it; without it no gap can be told.
DROP FUNCTION gaps(integer, text, tstzrange);
DROP FUNCTION recorded(integer, text, tstzrange);
DROP FUNCTION covered(integer, text, tstzrange);
DROP VIEW coverage_intervals;
DROP TABLE coverage, connections;
COMMENT ON COLUMN watermarks.stream IS NULL;
