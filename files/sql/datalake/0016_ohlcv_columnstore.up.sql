-- 0016_ohlcv_columnstore: how compressed chunks of bars are laid out; nothing compresses them by itself.
-- edition: community   needs: 0015_ohlcv   locks: the tables of bars, exclusively and for a moment
ALTER TABLE ohlcv_1s SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time');
ALTER TABLE ohlcv_1m SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time');
ALTER TABLE ohlcv_1h SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time');
ALTER TABLE ohlcv_1d SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time');
