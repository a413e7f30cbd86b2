-- 0009_channels_columnstore: how compressed chunks of the newer channels are laid out; nothing compresses them by itself.
-- edition: community   needs: 0008_channels   locks: the two tables, exclusively and for a moment
ALTER TABLE derivatives SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'received_at, batch'
);
ALTER TABLE liquidations SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'received_at, batch'
);
