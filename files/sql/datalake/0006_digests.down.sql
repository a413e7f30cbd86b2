-- 0006_digests: they can be computed again from the history.
DROP FUNCTION book_event_text;
DROP FUNCTION quote_text;
DROP FUNCTION trade_text;
DROP FUNCTION event_hash(text);
DROP TABLE digests;
