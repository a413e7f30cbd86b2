-- 0004_events: what was received, written fast and read by batch: partitioned by receive time, no unique index.
-- edition: any   needs: 0003_loading   locks: only the new relations
CREATE TABLE trades (
    received_at   timestamptz NOT NULL,
    time          timestamptz NOT NULL,
    batch         bigint      NOT NULL,
    epoch         bigint      NOT NULL,
    stream_id     integer     NOT NULL,
    instrument_id integer     NOT NULL,
    is_buy        boolean,
    trade_id      text,
    price         numeric     NOT NULL,
    amount        numeric     NOT NULL,
    buy_order_id  text,
    sell_order_id text
);
CREATE TABLE quotes (
    received_at   timestamptz NOT NULL,
    time          timestamptz,
    batch         bigint      NOT NULL,
    epoch         bigint      NOT NULL,
    update_id     bigint,
    stream_id     integer     NOT NULL,
    instrument_id integer     NOT NULL,
    bid_price     numeric     NOT NULL,
    bid_amount    numeric     NOT NULL,
    ask_price     numeric     NOT NULL,
    ask_amount    numeric     NOT NULL
);
CREATE TABLE book_events (
    received_at   timestamptz NOT NULL,
    time          timestamptz,
    batch         bigint      NOT NULL,
    epoch         bigint      NOT NULL,
    first_id      bigint,
    last_id       bigint,
    previous_id   bigint,
    stream_id     integer     NOT NULL,
    instrument_id integer     NOT NULL,
    is_snapshot   boolean     NOT NULL,
    bid_prices    numeric[]   NOT NULL,
    bid_amounts   numeric[]   NOT NULL CHECK (cardinality(bid_amounts) = cardinality(bid_prices)),
    ask_prices    numeric[]   NOT NULL,
    ask_amounts   numeric[]   NOT NULL CHECK (cardinality(ask_amounts) = cardinality(ask_prices))
);
COMMENT ON TABLE trades IS 'Public trades as received; price in quote per base, amount in base (contracts on derivatives).';
COMMENT ON TABLE quotes IS 'Best bid and ask (L1) as received.';
COMMENT ON TABLE book_events IS 'Order book snapshots and updates (L2) as received, one row per event; amount 0 deletes a level.';
COMMENT ON COLUMN quotes.time IS 'Time of the exchange, null where the wire carries none.';
COMMENT ON COLUMN book_events.time IS 'Time of the exchange, null where the wire carries none.';

SELECT create_hypertable('trades', by_range('received_at', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('quotes', by_range('received_at', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('book_events', by_range('received_at', INTERVAL '1 day'), create_default_indexes => false);

-- BRIN: rows of one batch lie together, so a few kilobytes of index find them, at next to no cost while loading.
CREATE INDEX trades_batch ON trades USING brin (batch, received_at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX quotes_batch ON quotes USING brin (batch, received_at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX book_events_batch ON book_events USING brin (batch, received_at) WITH (pages_per_range = 16, autosummarize = on);

GRANT SELECT ON trades, quotes, book_events TO cryptopip_sync_reader, cryptopip_reader;
GRANT INSERT ON trades, quotes, book_events TO cryptopip_loader;
