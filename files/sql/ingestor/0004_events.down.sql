-- 0004_events: drops every row received; the journals still hold their frames.
DROP TABLE book_events, quotes, trades;
