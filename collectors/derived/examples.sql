-- Questions an analyst asks the datalake, as role cryptopip_reader; tests run every one of them. Give times with a zone, and
-- both ends: a query without a range of time opens every chunk there is.

-- name: instruments
-- What is recorded, under which number.
SELECT id, exchange, symbol, kind, listed_at FROM instruments ORDER BY exchange, symbol;

-- name: bars
-- Bars of a minute of one instrument; resolutions are 1s, 1m, 1h, 1d.
SELECT o.time, o.open, o.high, o.low, o.close, o.volume, o.trades
FROM ohlcv_1m AS o INNER JOIN instruments AS i ON o.instrument_id = i.id
WHERE
    i.exchange = 'binance' AND i.symbol = 'BTC/USDT'
    AND o.time >= '2026-11-01 10:00+00' AND o.time < '2026-11-01 11:00+00'
ORDER BY o.time;

-- name: vwap
-- Volume-weighted average price of each hour, over all exchanges that trade the symbol.
SELECT o.time, sum(o.quote_volume) / nullif(sum(o.volume), 0) AS vwap, sum(o.volume) AS volume
FROM ohlcv_1h AS o INNER JOIN instruments AS i ON o.instrument_id = i.id
WHERE
    i.symbol = 'BTC/USDT' AND i.kind = 'spot'
    AND o.time >= '2026-11-01 00:00+00' AND o.time < '2026-11-02 00:00+00'
GROUP BY o.time
ORDER BY o.time;

-- name: order_flow
-- Bought less sold, a second at a time.
SELECT
    time_bucket('1 second', t.time) AS second,
    sum(CASE t.is_buy WHEN true THEN t.amount WHEN false THEN -t.amount ELSE 0 END) AS net_bought
FROM trades AS t
WHERE t.instrument_id = 1 AND t.time >= '2026-11-01 10:00+00' AND t.time < '2026-11-01 11:00+00'
GROUP BY second
ORDER BY second;

-- name: spread
-- Spread in basis points of the middle, as it was at each trade (the newest quote before it, of the last minute).
SELECT t.time, t.price, 20000 * (q.ask_price - q.bid_price) / (q.ask_price + q.bid_price) AS spread_bp
FROM trades AS t
CROSS JOIN LATERAL (
    SELECT quotes.bid_price, quotes.ask_price FROM quotes
    WHERE
        quotes.instrument_id = t.instrument_id AND quotes.time <= t.time
        AND quotes.time > t.time - INTERVAL '1 minute'
    ORDER BY quotes.time DESC LIMIT 1
) AS q
WHERE t.instrument_id = 1 AND t.time >= '2026-11-01 10:00+00' AND t.time < '2026-11-01 11:00+00'
ORDER BY t.time;

-- name: best_bid_ask
-- Best bid and ask of one instrument. Column is_derived tells those made from the book of an exchange that sends none: those
-- of an hour come when it is over, and while the book was not known there is no new one, see is_it_complete for when.
SELECT q.time, q.bid_price, q.bid_amount, q.ask_price, q.ask_amount, q.is_derived
FROM quotes AS q
WHERE q.instrument_id = 1 AND q.time >= '2026-11-01 10:00+00' AND q.time < '2026-11-01 11:00+00'
ORDER BY q.time, q.received_at, q.ordinal;

-- name: book
-- The book at a moment, ten levels a side. Column unknown says why where nobody can tell; levels beyond bid_horizon and
-- ask_horizon are not known and not listed.
SELECT side, level, price, amount, unknown, bid_horizon, ask_horizon
FROM book_at(1, '2026-11-01 10:30:30+00', 10);

-- name: books_by_the_hour
-- The books at full hours: where a walk through a day may begin. Their sides are arrays, best prices first.
SELECT s.time, s.bid_prices[1] AS best_bid, s.ask_prices[1] AS best_ask, s.bid_horizon, s.ask_horizon
FROM book_snapshots AS s
WHERE s.instrument_id = 1 AND s.time >= '2026-11-01 10:00+00' AND s.time < '2026-11-02 00:00+00'
ORDER BY s.time;

-- name: levels
-- Every change of the book, a row per level, in the columns of Tardis' incremental_book_L2.
SELECT exchange, symbol, "timestamp", local_timestamp, is_snapshot, side, price, amount
FROM tardis_incremental_book_l2
WHERE instrument_id = 1 AND time >= '2026-11-01 10:00+00' AND time < '2026-11-01 11:00+00'
ORDER BY local_timestamp, last_id;

-- name: led_levels
-- The same of an exchange whose books belong to their connection (table identities: epoch): one connection at a time, and
-- where another takes the lead, its book at that moment as a snapshot. A row per level.
SELECT b.received_at, b.is_snapshot, b.is_derived, side.name AS side, levels.price, levels.amount
FROM book_events_led(1, tstzrange('2026-11-01 10:00+00', '2026-11-01 11:00+00')) AS b
CROSS JOIN LATERAL (
    VALUES ('bid', b.bid_prices, b.bid_amounts), ('ask', b.ask_prices, b.ask_amounts)
) AS side (name, prices, amounts)
CROSS JOIN LATERAL unnest(side.prices, side.amounts) AS levels (price, amount)
ORDER BY b.received_at, b.ordinal;

-- name: is_it_complete
-- Before trusting a quiet hour: when nobody was listening in it, though recording was meant. Empty: all of it is covered.
SELECT gaps(1, 'trades', tstzrange('2026-11-01 10:00+00', '2026-11-01 11:00+00')) AS not_recorded;

-- name: lag
-- How long after the exchange's own time trades arrived, an hour at a time, in seconds: half and 99 of 100 were faster.
SELECT
    time_bucket('1 hour', t.time) AS hour,
    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(EPOCH FROM t.received_at - t.time)) AS seconds
FROM trades AS t
WHERE t.instrument_id = 1 AND t.time >= '2026-11-01 10:00+00' AND t.time < '2026-11-01 12:00+00'
GROUP BY hour
ORDER BY hour;
