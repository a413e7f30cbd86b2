-- 0003_sync: without watermarks the next sync pulls everything that ingestors still hold; merging finds it equal.
DROP TABLE watermarks, sources;
