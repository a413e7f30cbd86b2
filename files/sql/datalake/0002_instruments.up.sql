-- 0002_instruments: what is recorded. Ids are given out here, mirrored in the universe file, and never reused.
-- edition: any   needs: 0001_roles   locks: only the new relations
CREATE TABLE instruments (
    id            integer     PRIMARY KEY CHECK (id > 0),
    exchange      text        NOT NULL,
    symbol        text        NOT NULL,
    native_id     text        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('spot', 'swap', 'future', 'option')),
    base          text        NOT NULL,
    quote         text        NOT NULL,
    settle        text,
    contract_size numeric,
    is_inverse    boolean     NOT NULL DEFAULT false,
    expiry        timestamptz,
    strike        numeric,
    option_type   text        CHECK (option_type IN ('call', 'put')),
    price_tick    numeric,
    amount_step   numeric,
    listed_at     timestamptz NOT NULL,
    delisted_at   timestamptz CHECK (delisted_at > listed_at),
    UNIQUE (exchange, native_id, listed_at)
);
COMMENT ON TABLE instruments IS 'One row per listing; ids are never reused.';
COMMENT ON COLUMN instruments.symbol IS 'The unified text, as in ccxt: BTC/USDT.';
COMMENT ON COLUMN instruments.native_id IS 'The text of the exchange itself: BTCUSDT.';

CREATE TABLE recording (
    instrument_id integer   NOT NULL REFERENCES instruments (id),
    channel       text      NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events')),
    during        tstzrange NOT NULL CHECK (NOT isempty(during) AND NOT lower_inf(during))
);
CREATE UNIQUE INDEX recording_one_open ON recording (instrument_id, channel) WHERE upper_inf(during);
CREATE INDEX recording_instrument ON recording (instrument_id, channel);
COMMENT ON TABLE recording IS 'When we meant to record: what is in here and not in coverage is a gap.';

GRANT SELECT ON instruments, recording TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON instruments, recording TO cryptopip_sync_writer;
