-- 0011_channels_columnstore: how compressed chunks of the newer channels are laid out; nothing compresses them by itself.
-- edition: community   needs: 0010_channels   locks: the two tables, exclusively and for a moment
ALTER TABLE derivatives SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time, received_at'
);
ALTER TABLE liquidations SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time, liquidation_id'
);
