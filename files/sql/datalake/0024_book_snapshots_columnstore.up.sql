-- 0024_book_snapshots_columnstore: how compressed chunks of hourly books are laid out; nothing compresses them by itself.
-- edition: community   needs: 0023_book_snapshots   locks: the table, exclusively and for a moment
ALTER TABLE book_snapshots SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_id', timescaledb.orderby = 'time'
);
