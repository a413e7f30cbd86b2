-- 0008_channels: funding, open interest, mark and index price, liquidations; quotes of books with an empty side.
-- edition: any   needs: 0005_coverage   locks: quotes, coverage, rejected_events and load_batches, for a moment
CREATE TABLE derivatives (
    received_at   timestamptz NOT NULL,
    time          timestamptz,
    batch         bigint      NOT NULL,
    epoch         bigint      NOT NULL,
    stream_id     integer     NOT NULL,
    instrument_id integer     NOT NULL,
    funding_rate  numeric,
    funding_time  timestamptz,
    open_interest numeric,
    mark_price    numeric,
    index_price   numeric
);
CREATE TABLE liquidations (
    received_at    timestamptz NOT NULL,
    time           timestamptz NOT NULL,
    batch          bigint      NOT NULL,
    epoch          bigint      NOT NULL,
    stream_id      integer     NOT NULL,
    instrument_id  integer     NOT NULL,
    is_buy         boolean,
    liquidation_id text,
    price          numeric     NOT NULL,
    amount         numeric     NOT NULL
);
COMMENT ON TABLE derivatives IS 'What an exchange says of a derivative''s state, as received; null is what the message did not carry.';
COMMENT ON COLUMN derivatives.time IS 'Time of the exchange, null where the wire carries none.';
COMMENT ON COLUMN derivatives.funding_rate IS 'Of one funding interval, a fraction: 0.0001 is 0.01 %.';
COMMENT ON COLUMN derivatives.funding_time IS 'When that funding is due.';
COMMENT ON COLUMN derivatives.open_interest IS 'As the exchange counts it, in most cases contracts.';
COMMENT ON TABLE liquidations IS 'Forced orders as received; price in quote per base, amount as in trades.';
COMMENT ON COLUMN liquidations.is_buy IS 'Side of the forced order: true closes a short position.';
SELECT create_hypertable('derivatives', by_range('received_at', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('liquidations', by_range('received_at', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX derivatives_batch ON derivatives
USING brin (batch, received_at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX liquidations_batch ON liquidations
USING brin (batch, received_at) WITH (pages_per_range = 16, autosummarize = on);
GRANT SELECT ON derivatives, liquidations TO cryptopip_sync_reader, cryptopip_reader;
GRANT INSERT ON derivatives, liquidations TO cryptopip_loader;

ALTER TABLE quotes
ALTER COLUMN bid_price DROP NOT NULL,
ALTER COLUMN bid_amount DROP NOT NULL,
ALTER COLUMN ask_price DROP NOT NULL,
ALTER COLUMN ask_amount DROP NOT NULL;
COMMENT ON COLUMN quotes.bid_price IS 'Null where the side is empty, as is its amount.';
COMMENT ON COLUMN quotes.ask_price IS 'Null where the side is empty, as is its amount.';

ALTER TABLE load_batches
ADD COLUMN derivatives bigint NOT NULL DEFAULT 0,
ADD COLUMN liquidations bigint NOT NULL DEFAULT 0;
ALTER TABLE coverage DROP CONSTRAINT coverage_channel_check;
ALTER TABLE coverage ADD CONSTRAINT coverage_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations'));
ALTER TABLE rejected_events DROP CONSTRAINT rejected_events_channel_check;
ALTER TABLE rejected_events ADD CONSTRAINT rejected_events_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations'));
