-- 0015_ohlcv: bars of 1 s, 1 min, 1 h and 1 d from trades, and which hours have to be made anew; `cryptopip derive` makes them.
-- edition: any   needs: 0006_digests   locks: digests, against writes, for a moment
CREATE TABLE ohlcv_1s (
    time          timestamptz NOT NULL,
    instrument_id integer     NOT NULL,
    open          numeric     NOT NULL,
    high          numeric     NOT NULL,
    low           numeric     NOT NULL,
    close         numeric     NOT NULL,
    volume        numeric     NOT NULL,
    quote_volume  numeric     NOT NULL,
    trades        bigint      NOT NULL CHECK (trades > 0)
);
CREATE TABLE ohlcv_1m (
    time          timestamptz NOT NULL,
    instrument_id integer     NOT NULL,
    open          numeric     NOT NULL,
    high          numeric     NOT NULL,
    low           numeric     NOT NULL,
    close         numeric     NOT NULL,
    volume        numeric     NOT NULL,
    quote_volume  numeric     NOT NULL,
    trades        bigint      NOT NULL CHECK (trades > 0)
);
CREATE TABLE ohlcv_1h (
    time          timestamptz NOT NULL,
    instrument_id integer     NOT NULL,
    open          numeric     NOT NULL,
    high          numeric     NOT NULL,
    low           numeric     NOT NULL,
    close         numeric     NOT NULL,
    volume        numeric     NOT NULL,
    quote_volume  numeric     NOT NULL,
    trades        bigint      NOT NULL CHECK (trades > 0)
);
CREATE TABLE ohlcv_1d (
    time          timestamptz NOT NULL,
    instrument_id integer     NOT NULL,
    open          numeric     NOT NULL,
    high          numeric     NOT NULL,
    low           numeric     NOT NULL,
    close         numeric     NOT NULL,
    volume        numeric     NOT NULL,
    quote_volume  numeric     NOT NULL,
    trades        bigint      NOT NULL CHECK (trades > 0)
);
SELECT create_hypertable('ohlcv_1s', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('ohlcv_1m', by_range('time', INTERVAL '30 days'), create_default_indexes => false);
SELECT create_hypertable('ohlcv_1h', by_range('time', INTERVAL '365 days'), create_default_indexes => false);
SELECT create_hypertable('ohlcv_1d', by_range('time', INTERVAL '3650 days'), create_default_indexes => false);
CREATE UNIQUE INDEX ohlcv_1s_identity ON ohlcv_1s (instrument_id, time);
CREATE UNIQUE INDEX ohlcv_1m_identity ON ohlcv_1m (instrument_id, time);
CREATE UNIQUE INDEX ohlcv_1h_identity ON ohlcv_1h (instrument_id, time);
CREATE UNIQUE INDEX ohlcv_1d_identity ON ohlcv_1d (instrument_id, time);

COMMENT ON TABLE ohlcv_1s IS 'Bars of a second that had a trade. Equal times are ordered by trade id, see the columns.';
COMMENT ON TABLE ohlcv_1m IS 'Bars of a minute that had a trade.';
COMMENT ON TABLE ohlcv_1h IS 'Bars of an hour that had a trade.';
COMMENT ON TABLE ohlcv_1d IS 'Bars of a UTC day that had a trade.';
COMMENT ON COLUMN ohlcv_1s.time IS 'Its first moment, by the exchange''s clock, UTC.';
COMMENT ON COLUMN ohlcv_1s.open IS
'Price of the first trade by time, then by trade id (shorter before longer, so that 9 comes before 10), then by side, price and amount.';
COMMENT ON COLUMN ohlcv_1s.close IS 'Price of the last trade in that order.';
COMMENT ON COLUMN ohlcv_1s.volume IS 'Sum of amounts, in the unit of trades.amount.';
COMMENT ON COLUMN ohlcv_1s.quote_volume IS 'Sum of price times amount: in quote, where amounts are in base.';
COMMENT ON COLUMN ohlcv_1s.trades IS 'Number of trades.';

CREATE VIEW ohlcv AS
SELECT
    '1s' AS resolution, time, instrument_id, open, high, low, close, volume, quote_volume, trades
FROM ohlcv_1s
UNION ALL
SELECT
    '1m' AS resolution, time, instrument_id, open, high, low, close, volume, quote_volume, trades
FROM ohlcv_1m
UNION ALL
SELECT
    '1h' AS resolution, time, instrument_id, open, high, low, close, volume, quote_volume, trades
FROM ohlcv_1h
UNION ALL
SELECT
    '1d' AS resolution, time, instrument_id, open, high, low, close, volume, quote_volume, trades
FROM ohlcv_1d;
COMMENT ON VIEW ohlcv IS 'The bars of all resolutions: 1s, 1m, 1h, 1d; name one of them.';

-- An hour stands here from the moment its trades change until a day after its bars were made, so the table stays small
-- however long the history is. Who makes bars locks the row, so that trades cannot come in unnoticed meanwhile.
CREATE TABLE ohlcv_hours (
    instrument_id integer     NOT NULL,
    hour          timestamptz NOT NULL,
    state         text        NOT NULL DEFAULT 'stale' CHECK (state IN ('stale', 'settled', 'refused')),
    settled_until timestamptz NOT NULL CHECK (settled_until >= hour),
    settled_rows  bigint      NOT NULL DEFAULT 0,
    settled_hash  numeric     NOT NULL DEFAULT 0,
    PRIMARY KEY (instrument_id, hour)
);
CREATE INDEX ohlcv_hours_unsettled ON ohlcv_hours (hour) WHERE state <> 'settled';
COMMENT ON TABLE ohlcv_hours IS 'Hours whose bars are to be made, or were made lately.';
COMMENT ON COLUMN ohlcv_hours.state IS
'stale: trades changed since; settled: the bars are those of the trades; refused: the trades are not those of their digest.';
COMMENT ON COLUMN ohlcv_hours.settled_until IS
'The trades of the hour before this moment had settled_rows and settled_hash: while they still do, only later bars are made anew.';

-- The conflicting row is updated even where it says so already: that takes its lock, which DO NOTHING would not, and the
-- bars made by a transaction that cannot see these trades yet would be taken for theirs.
CREATE FUNCTION ohlcv_notice() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO ohlcv_hours AS o (instrument_id, hour, settled_until)
    SELECT changed.instrument_id, changed.hour, changed.hour FROM changed
    WHERE changed.channel = 'trades'
    ORDER BY changed.hour, changed.instrument_id
    ON CONFLICT (instrument_id, hour) DO UPDATE SET state = 'stale';
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION ohlcv_notice() IS 'Notes in ohlcv_hours, in the transaction that changes them, the hours whose trades changed.';
CREATE TRIGGER ohlcv_inserted AFTER INSERT ON digests
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ohlcv_notice();
CREATE TRIGGER ohlcv_updated AFTER UPDATE ON digests
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ohlcv_notice();
INSERT INTO ohlcv_hours (instrument_id, hour, settled_until)
SELECT digests.instrument_id, digests.hour, digests.hour AS settled_until FROM digests
WHERE digests.channel = 'trades';

GRANT SELECT ON ohlcv_1s, ohlcv_1m, ohlcv_1h, ohlcv_1d, ohlcv_hours TO cryptopip_reader;
GRANT SELECT ON ohlcv TO cryptopip_reader, cryptopip_sync_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON ohlcv_1s, ohlcv_1m, ohlcv_1h, ohlcv_1d, ohlcv_hours TO cryptopip_sync_writer;
