-- 0010_channels: funding, open interest, mark and index price, liquidations; events that carry no id.
-- edition: any   needs: 0007_sync_conflicts   locks: every event table, exclusively, for a moment
CREATE TABLE derivatives (
    time          timestamptz NOT NULL,
    received_at   timestamptz NOT NULL,
    epoch         bigint      NOT NULL,
    funding_time  timestamptz,
    instrument_id integer     NOT NULL,
    ordinal       smallint    NOT NULL DEFAULT 1,
    funding_rate  numeric,
    open_interest numeric,
    mark_price    numeric,
    index_price   numeric,
    ingestor      text        NOT NULL
);
CREATE TABLE liquidations (
    time           timestamptz NOT NULL,
    received_at    timestamptz NOT NULL,
    epoch          bigint      NOT NULL,
    instrument_id  integer     NOT NULL,
    ordinal        smallint    NOT NULL DEFAULT 1,
    is_buy         boolean,
    liquidation_id text,
    price          numeric     NOT NULL,
    amount         numeric     NOT NULL,
    ingestor       text        NOT NULL
);
COMMENT ON TABLE derivatives IS 'What exchanges said of a derivative''s state; null is what the message did not carry (unchanged).';
COMMENT ON COLUMN derivatives.time IS 'Time of the exchange, or receive time where the wire carries none.';
COMMENT ON COLUMN derivatives.funding_rate IS 'Of one funding interval, a fraction: 0.0001 is 0.01 %.';
COMMENT ON COLUMN derivatives.funding_time IS 'When that funding is due.';
COMMENT ON COLUMN derivatives.open_interest IS 'As the exchange counts it, in most cases contracts.';
COMMENT ON TABLE liquidations IS 'Forced orders; price in quote per base, amount as in trades.';
COMMENT ON COLUMN liquidations.is_buy IS 'Side of the forced order: true closes a short position.';
SELECT create_hypertable('derivatives', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('liquidations', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX derivatives_time ON derivatives (instrument_id, time);
CREATE UNIQUE INDEX liquidations_identity ON liquidations (instrument_id, time, liquidation_id);
GRANT SELECT ON derivatives, liquidations TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON derivatives, liquidations TO cryptopip_sync_writer;

ALTER TABLE trades ADD COLUMN ordinal smallint NOT NULL DEFAULT 1;
ALTER TABLE book_events ADD COLUMN ordinal smallint NOT NULL DEFAULT 1;
ALTER TABLE quotes
ADD COLUMN ordinal smallint NOT NULL DEFAULT 1,
ADD COLUMN is_derived boolean NOT NULL DEFAULT false,
ALTER COLUMN bid_price DROP NOT NULL,
ALTER COLUMN bid_amount DROP NOT NULL,
ALTER COLUMN ask_price DROP NOT NULL,
ALTER COLUMN ask_amount DROP NOT NULL;
COMMENT ON COLUMN trades.ordinal IS 'Of trades without an id that are equal in all: the how manieth within its connection. 1 elsewhere.';
COMMENT ON COLUMN quotes.ordinal IS 'As in trades; where events of two connections are never mixed, the place among those of one receive time.';
COMMENT ON COLUMN book_events.ordinal IS 'Where events of two connections are never mixed, the place among those of one receive time. 1 elsewhere.';
COMMENT ON COLUMN derivatives.ordinal IS 'As in quotes.';
COMMENT ON COLUMN liquidations.ordinal IS 'As in trades.';
COMMENT ON COLUMN quotes.is_derived IS 'Not sent by the exchange: taken from the merged book, where there is no best-bid/ask stream.';
COMMENT ON COLUMN quotes.bid_price IS 'Null where the side is empty, as is its amount.';
COMMENT ON COLUMN quotes.ask_price IS 'Null where the side is empty, as is its amount.';

ALTER TABLE recording DROP CONSTRAINT recording_channel_check;
ALTER TABLE recording ADD CONSTRAINT recording_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations'));
ALTER TABLE coverage DROP CONSTRAINT coverage_channel_check;
ALTER TABLE coverage ADD CONSTRAINT coverage_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations'));
ALTER TABLE digests DROP CONSTRAINT digests_channel_check;
ALTER TABLE digests ADD CONSTRAINT digests_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations'));
ALTER TABLE sync_conflicts DROP CONSTRAINT sync_conflicts_channel_check;
ALTER TABLE sync_conflicts ADD CONSTRAINT sync_conflicts_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations'));
