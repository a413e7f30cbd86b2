-- 0025_derived_quotes: best bid and ask (quotes.is_derived) from the book where an exchange sends none; `cryptopip derive`
-- makes them.
-- edition: any   needs: 0023_book_snapshots   locks: none but of the rows it writes
COMMENT ON COLUMN quotes.is_derived IS
'Not sent by the exchange, which has no best-bid/ask stream: taken by `cryptopip derive` from the book, where that belongs '
'to its connection as it is read through the lead; no digest counts it.';
COMMENT ON TABLE book_hours IS 'Hours whose book at the end, and whose derived quotes, are yet to be made.';
INSERT INTO book_hours (instrument_id, hour)
SELECT d.instrument_id, d.hour
FROM digests AS d
INNER JOIN instruments AS i ON i.id = d.instrument_id
INNER JOIN identities AS y ON y.exchange = i.exchange AND y.channel = 'book_events'
WHERE
    d.channel = 'book_events'
    AND NOT EXISTS (SELECT FROM identities AS q WHERE q.exchange = i.exchange AND q.channel = 'quotes')
ON CONFLICT (instrument_id, hour) DO UPDATE SET state = 'stale';
