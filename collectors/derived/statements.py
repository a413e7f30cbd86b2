"""The statements that make bars; ``ohlcv`` says in which order and why.

Columns of the stages: times UTC; ``since`` is the moment from which an hour's bars are made.
"""

from __future__ import annotations

from datetime import timedelta

from psycopg import sql

STAGES = """
CREATE TEMPORARY TABLE IF NOT EXISTS derive_hours (
    instrument_id integer, hour timestamptz, since timestamptz, settled_rows bigint, settled_hash numeric,
    rows bigint, hash numeric, is_refused boolean DEFAULT false, is_done boolean DEFAULT false
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS derive_seconds (
    instrument_id integer, hour timestamptz, time timestamptz, open numeric, high numeric, low numeric, close numeric,
    volume numeric, quote_volume numeric, trades bigint, hash numeric
) ON COMMIT DELETE ROWS;
"""
# An hour that sync holds at the moment is left to the next run.
TAKE = sql.SQL("""
INSERT INTO derive_hours (instrument_id, hour, since, settled_rows, settled_hash)
WITH taken AS (
    SELECT instrument_id, hour, settled_until, settled_rows, settled_hash FROM ohlcv_hours
    WHERE state = 'stale' AND hour >= {day} AND hour < {end}
    ORDER BY hour, instrument_id LIMIT {limit} FOR UPDATE SKIP LOCKED
)
SELECT * FROM taken
""")
DIGESTS = """
UPDATE derive_hours AS h SET rows = d.rows, hash = d.hash FROM digests AS d
WHERE d.instrument_id = h.instrument_id AND d.channel = 'trades' AND d.hour = h.hour
"""
# Times as literals, so that the planner opens the one chunk. The order is total but for trades that are equal in all
# that a bar is made of.
SECONDS = sql.SQL("""
INSERT INTO derive_seconds
SELECT
    instrument_id, hour, time, prices[1], high, low, prices[trades], volume, quote_volume, trades, hash
FROM (
    SELECT
        t.instrument_id, h.hour, time_bucket('1 second', t.time) AS time,
        array_agg(
            t.price
            ORDER BY t.time, length(t.trade_id), t.trade_id COLLATE "C", t.is_buy, t.price, t.amount
        ) AS prices,
        max(t.price) AS high, min(t.price) AS low, sum(t.amount) AS volume, sum(t.price * t.amount) AS quote_volume,
        count(*) AS trades, sum(event_hash({text})) AS hash
    FROM derive_hours AS h
    INNER JOIN trades AS t
        ON h.instrument_id = t.instrument_id AND t.time >= h.since AND t.time < h.hour + INTERVAL '1 hour'
    WHERE t.time >= {day} AND t.time < {end} AND NOT h.is_done
    GROUP BY t.instrument_id, h.hour, time_bucket('1 second', t.time)
) AS seconds
""")
FOUND = sql.SQL("""
    SELECT h.instrument_id, h.hour, coalesce(sum(s.trades), 0) AS rows, coalesce(sum(s.hash), 0) AS hash
    FROM derive_hours AS h LEFT JOIN derive_seconds AS s USING (instrument_id, hour)
    GROUP BY h.instrument_id, h.hour
""")
START_AGAIN = sql.SQL("""
WITH found AS ({found}),
checked AS (
    SELECT
        h.instrument_id, h.hour, h.since > h.hour
        AND (h.settled_rows + f.rows, h.settled_hash + f.hash) IS DISTINCT FROM (h.rows, h.hash) AS is_wrong
    FROM derive_hours AS h INNER JOIN found AS f USING (instrument_id, hour)
),
right_ones AS (
    UPDATE derive_hours AS h SET is_done = true FROM checked AS c
    WHERE NOT c.is_wrong AND c.instrument_id = h.instrument_id AND c.hour = h.hour
)
UPDATE derive_hours AS h SET since = h.hour, settled_rows = 0, settled_hash = 0 FROM checked AS c
WHERE c.is_wrong AND c.instrument_id = h.instrument_id AND c.hour = h.hour
""").format(found=FOUND)
DROP_SECONDS = """
DELETE FROM derive_seconds AS s USING derive_hours AS h
WHERE NOT h.is_done AND s.instrument_id = h.instrument_id AND s.hour = h.hour
"""
REFUSE = sql.SQL("""
WITH found AS ({found}),
refused AS (
    UPDATE derive_hours AS h SET is_refused = true FROM found AS f
    WHERE
        f.instrument_id = h.instrument_id AND f.hour = h.hour
        AND (h.settled_rows + f.rows, h.settled_hash + f.hash) IS DISTINCT FROM (h.rows, h.hash)
    RETURNING h.instrument_id, h.hour
),
dropped AS (
    DELETE FROM derive_seconds AS s USING refused AS r WHERE s.instrument_id = r.instrument_id AND s.hour = r.hour
)
UPDATE ohlcv_hours AS o SET state = 'refused', settled_until = o.hour, settled_rows = 0, settled_hash = 0
FROM refused AS r WHERE o.instrument_id = r.instrument_id AND o.hour = r.hour
""").format(found=FOUND)
VALUES = sql.SQL("open, high, low, close, volume, quote_volume, trades")
UPSERT = sql.SQL("""
ON CONFLICT (instrument_id, time) DO UPDATE SET ({values}) = (
    excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.quote_volume, excluded.trades
) WHERE (o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trades) IS DISTINCT FROM (
    excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.quote_volume, excluded.trades
)
""").format(values=VALUES)
BARS_OF_SECONDS = sql.SQL("""
INSERT INTO ohlcv_1s AS o (instrument_id, time, {values})
SELECT instrument_id, time, {values} FROM derive_seconds ORDER BY instrument_id, time
{upsert}
""").format(values=VALUES, upsert=UPSERT)
DROP_BARS_OF_SECONDS = sql.SQL("""
DELETE FROM ohlcv_1s AS o USING derive_hours AS h
WHERE
    NOT h.is_refused AND o.instrument_id = h.instrument_id AND o.time >= h.since AND o.time < h.hour + INTERVAL '1 hour'
    AND o.time >= {day} AND o.time < {end}
    AND NOT EXISTS (SELECT FROM derive_seconds AS s WHERE s.instrument_id = o.instrument_id AND s.time = o.time)
""")
ROLL_UPS = (
    ("1s", "1m", timedelta(minutes=1), "time_bucket('1 minute', since)", "hour + INTERVAL '1 hour'"),
    ("1m", "1h", timedelta(hours=1), "hour", "hour + INTERVAL '1 hour'"),
    ("1h", "1d", timedelta(days=1), "time_bucket('1 day', hour)", "time_bucket('1 day', hour) + INTERVAL '1 day'"),
)
"""Source and target, width, and the first and last moment in which bars of the target are made anew."""
RANGES = sql.SQL(
    "SELECT DISTINCT instrument_id, {first} AS first, {last} AS last FROM derive_hours WHERE NOT is_refused"
)
# A bar of the target lies wholly within the one day of this transaction.
ROLL_UP = sql.SQL("""
INSERT INTO {target} AS o (instrument_id, time, {values})
SELECT
    s.instrument_id, time_bucket({width}, s.time) AS bar,
    (array_agg(s.open ORDER BY s.time))[1], max(s.high), min(s.low),
    (array_agg(s.close ORDER BY s.time DESC))[1], sum(s.volume), sum(s.quote_volume), sum(s.trades)
FROM ({ranges}) AS r
INNER JOIN {source} AS s ON r.instrument_id = s.instrument_id AND s.time >= r.first AND s.time < r.last
WHERE s.time >= {day} AND s.time < {end}
GROUP BY s.instrument_id, bar
ORDER BY s.instrument_id, bar
{upsert}
""")
DROP_ROLLED_UP = sql.SQL("""
DELETE FROM {target} AS o USING ({ranges}) AS r
WHERE
    o.instrument_id = r.instrument_id AND o.time >= r.first AND o.time < r.last AND o.time >= {day} AND o.time < {end}
    AND NOT EXISTS (
        SELECT FROM {source} AS s
        WHERE
            s.instrument_id = o.instrument_id AND s.time >= o.time AND s.time < o.time + {width}
            AND s.time >= {day} AND s.time < {end}
    )
""")
# The last second may still grow, so what is settled ends before it.
SETTLE = """
WITH last AS (
    SELECT instrument_id, hour, max(time) AS time FROM derive_seconds GROUP BY instrument_id, hour
),
grown AS (
    SELECT l.instrument_id, l.hour, l.time, coalesce(sum(s.trades), 0) AS rows, coalesce(sum(s.hash), 0) AS hash
    FROM last AS l LEFT JOIN derive_seconds AS s
        ON l.instrument_id = s.instrument_id AND l.hour = s.hour AND s.time < l.time
    GROUP BY l.instrument_id, l.hour, l.time
)
UPDATE ohlcv_hours AS o SET
    state = 'settled', settled_until = coalesce(g.time, h.since),
    settled_rows = h.settled_rows + coalesce(g.rows, 0), settled_hash = h.settled_hash + coalesce(g.hash, 0)
FROM derive_hours AS h LEFT JOIN grown AS g USING (instrument_id, hour)
WHERE NOT h.is_refused AND o.instrument_id = h.instrument_id AND o.hour = h.hour
"""
