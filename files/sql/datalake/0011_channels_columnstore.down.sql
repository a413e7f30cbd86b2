-- 0011_channels_columnstore: fails while compressed chunks exist, so that no row is lost; decompress them first.
ALTER TABLE liquidations SET (timescaledb.enable_columnstore = false);
ALTER TABLE derivatives SET (timescaledb.enable_columnstore = false);
