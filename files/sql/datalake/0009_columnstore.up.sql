-- 0009_columnstore: how chunks of merged history are laid out once compressed; nothing compresses them by itself.
-- edition: community   needs: 0004_events   locks: the event tables, exclusively and for a moment
ALTER TABLE trades SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time, trade_id'
);
ALTER TABLE quotes SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time, update_id'
);
ALTER TABLE book_events SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time, last_id'
);
