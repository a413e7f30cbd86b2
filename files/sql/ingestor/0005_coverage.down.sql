-- 0005_coverage: the journals' marks rebuild it when they are loaded again.
DROP VIEW coverage_intervals;
DROP TABLE coverage, connections;
