-- 0017_tardis: the history in the columns of Tardis' CSV files, for programs that read those.
-- edition: any   needs: 0010_channels   locks: only the new views
-- What differs: exchange is ccxt's id (binanceusdm, not binance-futures); nothing is carried forward, so a derivative's
-- null is what a message did not say; times of before 1970 and after 2106 are not exact. Order by local_timestamp to replay.
-- Where events belong to their connection (table identities: epoch) the events of every connection are here.
CREATE FUNCTION microseconds(of timestamptz) RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN (date_part('epoch', of) * 1000000)::bigint;
COMMENT ON FUNCTION microseconds(timestamptz) IS 'µs since 1970, UTC.';

CREATE VIEW tardis_trades AS
SELECT
    i.exchange,
    i.native_id AS symbol,
    microseconds(t.time) AS "timestamp",
    microseconds(t.received_at) AS local_timestamp,
    t.trade_id AS id,
    CASE t.is_buy WHEN true THEN 'buy' WHEN false THEN 'sell' ELSE 'unknown' END AS side,
    t.price,
    t.amount,
    t.time,
    t.instrument_id
FROM trades AS t INNER JOIN instruments AS i ON t.instrument_id = i.id;

CREATE VIEW tardis_quotes AS
SELECT
    i.exchange,
    i.native_id AS symbol,
    microseconds(q.time) AS "timestamp",
    microseconds(q.received_at) AS local_timestamp,
    q.ask_amount,
    q.ask_price,
    q.bid_price,
    q.bid_amount,
    q.time,
    q.instrument_id
FROM quotes AS q INNER JOIN instruments AS i ON q.instrument_id = i.id;

CREATE VIEW tardis_incremental_book_l2 AS
SELECT
    i.exchange,
    i.native_id AS symbol,
    microseconds(b.time) AS "timestamp",
    microseconds(b.received_at) AS local_timestamp,
    b.is_snapshot,
    side.name AS side,
    levels.price,
    levels.amount,
    b.time,
    b.instrument_id,
    b.last_id
FROM book_events AS b
INNER JOIN instruments AS i ON b.instrument_id = i.id
CROSS JOIN LATERAL (
    VALUES
    ('bid', b.bid_prices, b.bid_amounts),
    ('ask', b.ask_prices, b.ask_amounts)
) AS side (name, prices, amounts)
CROSS JOIN LATERAL unnest(side.prices, side.amounts) AS levels (price, amount);

CREATE VIEW tardis_derivative_ticker AS
SELECT
    i.exchange,
    i.native_id AS symbol,
    microseconds(d.time) AS "timestamp",
    microseconds(d.received_at) AS local_timestamp,
    microseconds(d.funding_time) AS funding_timestamp,
    d.funding_rate,
    NULL::numeric AS predicted_funding_rate,
    d.open_interest,
    NULL::numeric AS last_price,
    d.index_price,
    d.mark_price,
    d.time,
    d.instrument_id
FROM derivatives AS d INNER JOIN instruments AS i ON d.instrument_id = i.id;

CREATE VIEW tardis_liquidations AS
SELECT
    i.exchange,
    i.native_id AS symbol,
    microseconds(l.time) AS "timestamp",
    microseconds(l.received_at) AS local_timestamp,
    l.liquidation_id AS id,
    CASE l.is_buy WHEN true THEN 'buy' WHEN false THEN 'sell' ELSE 'unknown' END AS side,
    l.price,
    l.amount,
    l.time,
    l.instrument_id
FROM liquidations AS l INNER JOIN instruments AS i ON l.instrument_id = i.id;

COMMENT ON VIEW tardis_trades IS 'trades in Tardis'' columns; filter by time and instrument_id, which stand behind them.';
COMMENT ON VIEW tardis_quotes IS 'quotes in Tardis'' columns; filter by time and instrument_id, which stand behind them.';
COMMENT ON VIEW tardis_incremental_book_l2 IS 'book_events by level in Tardis'' columns; of all connections: see book_events_led for those that lead.';
COMMENT ON VIEW tardis_derivative_ticker IS 'derivatives in Tardis'' columns; null is what the message did not carry.';
COMMENT ON VIEW tardis_liquidations IS 'liquidations in Tardis'' columns.';
GRANT SELECT ON
tardis_trades, tardis_quotes, tardis_incremental_book_l2, tardis_derivative_ticker, tardis_liquidations
TO cryptopip_reader;
