-- 0025_derived_quotes: drops the derived quotes, which can be made again from the book events.
DELETE FROM quotes WHERE quotes.is_derived;
COMMENT ON TABLE book_hours IS 'Hours whose book at the end is yet to be made.';
COMMENT ON COLUMN quotes.is_derived IS 'Not sent by the exchange: taken from the merged book, where there is no best-bid/ask stream.';
