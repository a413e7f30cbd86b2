-- 0004_events: the merged history, each event once.
-- edition: any   needs: 0003_sync   locks: only the new relations
CREATE TABLE trades (
    time          timestamptz NOT NULL,
    received_at   timestamptz NOT NULL,
    epoch         bigint      NOT NULL,
    instrument_id integer     NOT NULL,
    is_buy        boolean,
    trade_id      text,
    price         numeric     NOT NULL,
    amount        numeric     NOT NULL,
    buy_order_id  text,
    sell_order_id text,
    ingestor      text        NOT NULL
);
CREATE TABLE quotes (
    time          timestamptz NOT NULL,
    received_at   timestamptz NOT NULL,
    epoch         bigint      NOT NULL,
    update_id     bigint,
    instrument_id integer     NOT NULL,
    bid_price     numeric     NOT NULL,
    bid_amount    numeric     NOT NULL,
    ask_price     numeric     NOT NULL,
    ask_amount    numeric     NOT NULL,
    ingestor      text        NOT NULL
);
CREATE TABLE book_events (
    time          timestamptz NOT NULL,
    received_at   timestamptz NOT NULL,
    epoch         bigint      NOT NULL,
    first_id      bigint,
    last_id       bigint,
    previous_id   bigint,
    instrument_id integer     NOT NULL,
    is_snapshot   boolean     NOT NULL,
    bid_prices    numeric[]   NOT NULL,
    bid_amounts   numeric[]   NOT NULL,
    ask_prices    numeric[]   NOT NULL,
    ask_amounts   numeric[]   NOT NULL,
    ingestor      text        NOT NULL
);
COMMENT ON TABLE trades IS 'Public trades; price in quote per base, amount in base (contracts on derivatives).';
COMMENT ON TABLE quotes IS 'Best bid and ask (L1).';
COMMENT ON TABLE book_events IS 'Order book snapshots and updates (L2), one row per event of the exchange; amount 0 deletes a level.';
COMMENT ON COLUMN trades.received_at IS 'Receive time of the copy merged first, as are epoch and ingestor.';
COMMENT ON COLUMN quotes.time IS 'Time of the exchange; where the wire carries none, the earliest receive time among the copies merged together.';

SELECT create_hypertable('trades', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('quotes', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('book_events', by_range('time', INTERVAL '1 day'), create_default_indexes => false);

CREATE UNIQUE INDEX trades_identity ON trades (instrument_id, time, trade_id);
-- Quotes of some exchanges are stamped by us, so their time cannot be part of what makes two of them the same.
CREATE INDEX quotes_identity ON quotes (instrument_id, update_id);
CREATE INDEX quotes_time ON quotes (instrument_id, time);
CREATE INDEX book_events_identity ON book_events (instrument_id, last_id);
CREATE INDEX book_events_time ON book_events (instrument_id, time);

GRANT SELECT ON trades, quotes, book_events TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON trades, quotes, book_events TO cryptopip_sync_writer;
