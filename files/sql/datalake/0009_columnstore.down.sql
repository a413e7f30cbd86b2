-- 0009_columnstore: fails while compressed chunks exist, so that no row is lost; decompress them first.
ALTER TABLE book_events SET (timescaledb.enable_columnstore = false);
ALTER TABLE quotes SET (timescaledb.enable_columnstore = false);
ALTER TABLE trades SET (timescaledb.enable_columnstore = false);
