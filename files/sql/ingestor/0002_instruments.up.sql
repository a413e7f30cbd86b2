-- 0002_instruments: what is recorded. Ids are given out by the datalake and carried here by the universe file.
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
GRANT SELECT ON instruments TO cryptopip_loader, cryptopip_sync_reader, cryptopip_reader;
GRANT INSERT, UPDATE ON instruments TO cryptopip_loader;
