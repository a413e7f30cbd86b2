-- 0004_events: drops every row received; the journals still hold their frames.
-- One by one: TimescaleDB drops a hypertable only alone.
DROP TABLE book_events;
DROP TABLE quotes;
DROP TABLE trades;
