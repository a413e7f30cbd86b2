-- 0004_events: drops the merged history; back it up first.
-- One by one: TimescaleDB drops a hypertable only alone.
DROP TABLE book_events;
DROP TABLE quotes;
DROP TABLE trades;
