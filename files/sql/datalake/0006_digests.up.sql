-- 0006_digests: count and hash of the history per instrument, channel and hour, whatever the order it came in.
-- edition: any   needs: 0004_events   locks: only the new relations
CREATE TABLE digests (
    instrument_id integer     NOT NULL,
    channel       text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events')),
    hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    rows          bigint      NOT NULL CHECK (rows >= 0),
    hash          numeric     NOT NULL CHECK (hash = trunc(hash)),
    PRIMARY KEY (instrument_id, channel, hour)
);
COMMENT ON TABLE digests IS 'Kept up to date by the transaction that merges the rows.';
COMMENT ON COLUMN digests.hour IS 'UTC hour of the rows'' time.';
COMMENT ON COLUMN digests.hash IS 'Sum of event_hash over the rows: the same in whatever order they are added.';

CREATE FUNCTION event_hash(identity_and_payload text) RETURNS bigint
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN ('x' || left(md5(identity_and_payload), 16))::bit(64)::bigint;
COMMENT ON FUNCTION event_hash(text) IS 'The first 64 bits of md5, big-endian, as a signed number: easily computed anywhere.';

-- The texts below are what other programs must build to get equal digests: fields joined by '|', absent ones empty,
-- numbers with every digit the exchange sent, time as µs since 1970. Receive time and provenance are not in them, nor
-- is the time of an event that is known by its id alone, for there it may be a receive time. STABLE like the casts
-- inside: declared immutable they would not be inlined, which costs a third of the merge. date_part is a double, exact to
-- the µs until the year 2106 and four times as fast as extract.
CREATE FUNCTION trade_text(
    instrument_id integer, "time" timestamptz, trade_id text, is_buy boolean, price numeric, amount numeric,
    buy_order_id text, sell_order_id text
) RETURNS text STABLE PARALLEL SAFE LANGUAGE sql
RETURN concat(
    'trades|', instrument_id, '|', (date_part('epoch', "time") * 1000000)::bigint, '|', trade_id,
    CASE is_buy WHEN true THEN '|buy|' WHEN false THEN '|sell|' ELSE '||' END,
    price, '|', amount, '|', buy_order_id, '|', sell_order_id
);

CREATE FUNCTION quote_text(
    instrument_id integer, update_id bigint, bid_price numeric, bid_amount numeric, ask_price numeric, ask_amount numeric
) RETURNS text STABLE PARALLEL SAFE LANGUAGE sql
RETURN concat(
    'quotes|', instrument_id, '|', update_id, '|', bid_price, '|', bid_amount, '|', ask_price, '|', ask_amount
);

CREATE FUNCTION book_event_text(
    instrument_id integer, is_snapshot boolean, first_id bigint, last_id bigint,
    bid_prices numeric[], bid_amounts numeric[], ask_prices numeric[], ask_amounts numeric[]
) RETURNS text STABLE PARALLEL SAFE LANGUAGE sql
RETURN concat(
    'book_events|', instrument_id, CASE WHEN is_snapshot THEN '|snapshot|' ELSE '|update|' END, first_id, '|', last_id,
    '|', bid_prices, '|', bid_amounts, '|', ask_prices, '|', ask_amounts
);
COMMENT ON FUNCTION trade_text IS 'trades|instrument|µs|trade id|buy or sell|price|amount|buy order|sell order';
COMMENT ON FUNCTION quote_text IS 'quotes|instrument|update id|bid price|bid amount|ask price|ask amount';
COMMENT ON FUNCTION book_event_text IS
'book_events|instrument|snapshot or update|first id|last id|{bid prices}|{bid amounts}|{ask prices}|{ask amounts}, comma-separated';

GRANT SELECT ON digests TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON digests TO cryptopip_sync_writer;
