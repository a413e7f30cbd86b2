-- 0020_backfills: which gaps were looked into is forgotten; the trades that were added stay.
COMMENT ON COLUMN trades.ingestor IS NULL;
DROP TABLE backfills;
