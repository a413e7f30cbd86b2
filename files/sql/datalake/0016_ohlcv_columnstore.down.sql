-- 0016_ohlcv_columnstore: fails while compressed chunks exist, so that no bar is lost; decompress them first.
ALTER TABLE ohlcv_1d SET (timescaledb.enable_columnstore = false);
ALTER TABLE ohlcv_1h SET (timescaledb.enable_columnstore = false);
ALTER TABLE ohlcv_1m SET (timescaledb.enable_columnstore = false);
ALTER TABLE ohlcv_1s SET (timescaledb.enable_columnstore = false);
