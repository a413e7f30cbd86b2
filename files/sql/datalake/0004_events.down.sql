-- 0004_events: drops the merged history; back it up first.
DROP TABLE book_events, quotes, trades;
