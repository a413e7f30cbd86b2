"""The statements that make books; ``books`` says in which order and why. An hour goes from ``hour`` to ``end``."""

from __future__ import annotations

from psycopg import sql

_OVER = sql.SQL("hour <= now() - INTERVAL '70 minutes'")
LEFT = sql.SQL("""
SELECT count(*) FILTER (WHERE state = 'stale' AND {over}), count(*) FILTER (WHERE state = 'refused') FROM book_hours
""").format(over=_OVER)
NEWEST_DAY = sql.SQL("""
SELECT time_bucket('1 day', max(hour)) FROM book_hours
WHERE state = 'stale' AND {over} AND hour < coalesce(%s::timestamptz, 'infinity')
""").format(over=_OVER)
OF_DAY = sql.SQL("""
SELECT instrument_id, hour FROM book_hours WHERE state = 'stale' AND {over} AND hour >= %s AND hour < %s
ORDER BY instrument_id, hour
""").format(over=_OVER)
IS_DROPPED = """
SELECT FROM dropped_chunks WHERE channel = 'book_events' AND during @> %(hour)s::timestamptz
"""
# An hour that sync holds at the moment is left to the next run.
TAKE = """
DELETE FROM book_hours WHERE (instrument_id, hour) = (
    SELECT instrument_id, hour FROM book_hours
    WHERE instrument_id = %(instrument)s AND hour = %(hour)s AND state = 'stale' FOR UPDATE SKIP LOCKED
)
"""
REFUSE = """
INSERT INTO book_hours (instrument_id, hour, state)
SELECT %(instrument)s, %(hour)s, 'refused' WHERE (
    SELECT count(*) FROM book_events
    WHERE instrument_id = %(instrument)s AND time >= %(hour)s AND time < %(end)s
) <> coalesce((
    SELECT rows FROM digests WHERE instrument_id = %(instrument)s AND channel = 'book_events' AND hour = %(hour)s
), 0)
"""
# Whether a book belongs to its connection, and whether the exchange is known to send no quotes.
READ_HOW = """
SELECT d.identity = 'epoch', NOT EXISTS (
    SELECT FROM identities AS q WHERE q.exchange = i.exchange AND q.channel = 'quotes'
)
FROM instruments AS i INNER JOIN identities AS d ON d.exchange = i.exchange
WHERE i.id = %(instrument)s AND d.channel = 'book_events'
"""
DROP = "DELETE FROM book_snapshots WHERE instrument_id = %(instrument)s AND time = %(end)s"
_COLUMNS = sql.SQL("""
    time, instrument_id, ingestor, epoch, received_until, last_id, last_time, snapshot_id, since, bid_horizon,
    ask_horizon, bid_prices, bid_amounts, ask_prices, ask_amounts
""")
_LEVELS = sql.SQL("""
    coalesce(array_agg(s.price ORDER BY s.price DESC) FILTER (WHERE s.side = 'bid'), '{}'),
    coalesce(array_agg(s.amount ORDER BY s.price DESC) FILTER (WHERE s.side = 'bid'), '{}'),
    coalesce(array_agg(s.price ORDER BY s.price) FILTER (WHERE s.side = 'ask'), '{}'),
    coalesce(array_agg(s.amount ORDER BY s.price) FILTER (WHERE s.side = 'ask'), '{}')
""")
# None where the hour had no update: what it began with is as near, or each event is a whole book.
MAKE = sql.SQL("""
INSERT INTO book_snapshots ({columns})
SELECT
    %(end)s, %(instrument)s, NULL, NULL, NULL, s.last_id, s.time, s.snapshot_id, s.since, s.bid_horizon, s.ask_horizon,
    {levels}
FROM (
    SELECT max(last_id) AS last_id FROM book_events
    WHERE instrument_id = %(instrument)s AND time >= %(hour)s AND time < %(end)s
    HAVING bool_or(NOT is_snapshot)
) AS reached
CROSS JOIN LATERAL chain_state(%(instrument)s, reached.last_id, %(hour)s) AS s
WHERE s.unknown IS NULL
GROUP BY s.last_id, s.time, s.snapshot_id, s.since, s.bid_horizon, s.ask_horizon
""").format(columns=_COLUMNS, levels=_LEVELS)
# Of the connection that leads at the hour's end, as far as it received before its first event of later.
MAKE_OF_CONNECTION = sql.SQL("""
INSERT INTO book_snapshots ({columns})
WITH lead AS (
    SELECT ingestor, epoch FROM leads(%(instrument)s, 'book_events', tstzrange(%(end)s, %(end)s, '[]')) LIMIT 1
),
reached AS (
    SELECT b.ingestor, b.epoch, max(b.received_at) AS received_until
    FROM lead AS l INNER JOIN book_events AS b USING (ingestor, epoch)
    WHERE
        b.instrument_id = %(instrument)s AND b.time >= %(hour)s AND b.time < %(end)s AND b.received_at < least(
            %(end)s, (
                SELECT min(later.received_at) FROM book_events AS later
                WHERE
                    later.instrument_id = %(instrument)s AND later.ingestor = l.ingestor AND later.epoch = l.epoch
                    AND later.time >= %(end)s AND later.time < %(end)s + INTERVAL '1 hour'
            )
        )
    GROUP BY b.ingestor, b.epoch
    HAVING bool_or(NOT b.is_snapshot)
)
SELECT
    %(end)s, %(instrument)s, r.ingestor, r.epoch, r.received_until, s.last_id, s.time, s.snapshot_id, s.since,
    NULL, NULL, {levels}
FROM reached AS r
CROSS JOIN LATERAL epoch_state(%(instrument)s, r.ingestor, r.epoch, NULL, r.received_until) AS s
GROUP BY r.ingestor, r.epoch, r.received_until, s.last_id, s.time, s.snapshot_id, s.since
""").format(columns=_COLUMNS, levels=_LEVELS)
LEFT_TO_THE_NEXT = """
SELECT (
    SELECT md5(s::text) FROM book_snapshots AS s WHERE s.instrument_id = %(instrument)s AND s.time = %(end)s
), (
    SELECT concat_ws('|', bid_price, bid_amount, ask_price, ask_amount) FROM quotes
    WHERE instrument_id = %(instrument)s AND is_derived AND time >= %(hour)s AND time < %(end)s
    ORDER BY time DESC, received_at DESC, ordinal DESC, update_id DESC LIMIT 1
)
"""
DROP_QUOTES = """
DELETE FROM quotes WHERE instrument_id = %(instrument)s AND is_derived AND time >= %(hour)s AND time < %(end)s
"""
# Nothing to compare stands at this hour's end, and the next snapshot reaches back beyond it.
IS_RESTED_ON = """
SELECT FROM (
    SELECT time, since FROM book_snapshots WHERE instrument_id = %(instrument)s AND time >= %(end)s
    ORDER BY time LIMIT 1
) AS s
WHERE s.time > %(end)s AND s.since <= %(hour)s
"""
NOTE_THE_NEXT = """
INSERT INTO book_hours AS h (instrument_id, hour)
SELECT instrument_id, hour FROM digests
WHERE instrument_id = %(instrument)s AND channel = 'book_events' AND hour >= %(end)s AND rows > 0
ORDER BY hour LIMIT 1
ON CONFLICT (instrument_id, hour) DO UPDATE SET state = 'stale'
"""
