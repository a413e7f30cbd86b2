-- 0024_book_snapshots_columnstore: fails while compressed chunks exist, so that no row is lost; decompress them first.
ALTER TABLE book_snapshots SET (timescaledb.enable_columnstore = false);
