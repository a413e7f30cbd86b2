"""The derived quotes of an hour, read from the book's events and written to the table ``quotes``.

An hour's quotes are those of its events, by their time; a book is followed by ids or by receive time. So what is
followed may begin and end a little outside of the hour, and what is told there belongs to its own hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import psycopg

from collectors.derived.quotes import Event, Quote, Start, chain_quotes, epoch_quotes

_AT_ONCE = 5000
_STRAY = timedelta(minutes=10)
"""How far the times of events that follow each other, by id or by receipt, may lie apart from that order."""
_MINUTE = timedelta(minutes=1)
_MICROSECOND = timedelta(microseconds=1)

_COPY = """
COPY quotes (
    time, received_at, epoch, update_id, instrument_id, bid_price, bid_amount, ask_price, ask_amount, ingestor, ordinal,
    is_derived
) FROM STDIN
"""
_EVENTS = """
SELECT
    time, received_at, epoch, ingestor, ordinal, coalesce(first_id, previous_id + 1), last_id, is_snapshot,
    bid_prices, bid_amounts, ask_prices, ask_amounts
FROM book_events WHERE instrument_id = %(instrument)s AND time >= %(from)s AND time < %(to)s
"""
_IDS = """
SELECT first, last, (
    SELECT max(last_id) FROM book_events
    WHERE
        instrument_id = %(instrument)s AND last_id < first AND time > %(hour)s - INTERVAL '26 hours' AND time < %(to)s
)
FROM (
    SELECT min(last_id) AS first, max(last_id) AS last FROM book_events
    WHERE instrument_id = %(instrument)s AND time >= %(hour)s AND time < %(end)s
) AS ids
WHERE first IS NOT NULL
"""
_CHAIN = f"{_EVENTS} AND last_id BETWEEN %(first)s AND %(last)s ORDER BY last_id, is_snapshot, received_at, first_id"
_CHAIN_STATE = """
SELECT side, price, amount, last_id, snapshot_id, bid_horizon, ask_horizon
FROM chain_state(%(instrument)s, %(before)s, %(hour)s) WHERE unknown IS NULL
"""
_LEADS = """
SELECT stretch, ingestor, epoch, lower(stretch) > received.first, lower_inc(stretch)
FROM (
    SELECT min(received_at) - INTERVAL '1 us' AS first, max(received_at) AS last FROM book_events
    WHERE instrument_id = %(instrument)s AND time >= %(hour)s AND time < %(end)s
) AS received
CROSS JOIN LATERAL leads(%(instrument)s, 'book_events', tstzrange(received.first, received.last, '[]'))
WHERE received.first IS NOT NULL
"""
_OF_CONNECTION = f"{_EVENTS} AND ingestor = %(ingestor)s AND epoch = %(epoch)s"
_LED = f"{_OF_CONNECTION} AND received_at <@ %(stretch)s::tstzrange ORDER BY received_at, ordinal"
_BEFORE = (
    f"{_OF_CONNECTION} AND received_at > %(until)s - INTERVAL '1 minute' AND received_at <= %(until)s"
    " ORDER BY received_at, ordinal"
)
_EPOCH_STATE = """
SELECT side, price, amount, last_id, snapshot_id, NULL, NULL
FROM epoch_state(%(instrument)s, %(ingestor)s, %(epoch)s, NULL, %(until)s)
"""


def make_quotes(
    connection: psycopg.Connection[Any], instrument: int, hour: datetime, end: datetime, *, is_of_connection: bool
) -> int:
    """Write the derived quotes of an hour that has none; returns how many. Belongs into a transaction."""
    key = {"instrument": instrument, "hour": hour, "end": end, "from": hour - _STRAY, "to": end + _STRAY}
    quotes = (_of_connections if is_of_connection else _of_chain)(connection, key)
    own = (quote for quote in quotes if hour <= quote.event.time < end)
    written = 0
    while some := list(islice(own, _AT_ONCE)):
        _write(connection, instrument, some)
        written += len(some)
    return written


def _write(connection: psycopg.Connection[Any], instrument: int, quotes: Sequence[Quote]) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for event, best in quotes:
            head = (event.time, event.received_at, event.epoch, event.last_id, instrument)
            copy.write_row((*head, *best, event.ingestor, event.ordinal, True))


def _of_chain(connection: psycopg.Connection[Any], key: dict[str, Any]) -> Iterator[Quote]:
    ids = connection.execute(_IDS, key).fetchone()
    if ids is None:
        return
    first, last, before = ids
    start = None if before is None else _start(connection, _CHAIN_STATE, {**key, "before": before})
    yield from chain_quotes(start, _events(connection, _CHAIN, {**key, "first": first, "last": last}))


def _of_connections(connection: psycopg.Connection[Any], key: dict[str, Any]) -> Iterator[Quote]:
    for stretch, ingestor, epoch, is_new, is_from_begin in connection.execute(_LEADS, key).fetchall():
        until = stretch.lower - _MICROSECOND if is_from_begin else stretch.lower
        of = {**key, "ingestor": ingestor, "epoch": epoch, "stretch": stretch, "until": until}
        start = _start(connection, _EPOCH_STATE, of)
        before = list(_events(connection, _BEFORE, {**of, "from": key["from"] - _MINUTE}))
        yield from epoch_quotes(start, _events(connection, _LED, of), is_new=is_new, before=before)


def _start(connection: psycopg.Connection[Any], query: str, key: dict[str, Any]) -> Start | None:
    rows = connection.execute(query.encode(), key, binary=True).fetchall()
    if not rows:
        return None
    bids, asks = ({row[1]: row[2] for row in rows if row[0] == side} for side in ("bid", "ask"))
    return Start(bids, asks, *rows[0][3:])


def _events(connection: psycopg.Connection[Any], query: str, key: dict[str, Any]) -> Iterator[Event]:
    """In pieces, so that memory is the same however much happened in the hour."""
    with connection.cursor(name="book_events") as cursor:
        cursor.itersize = _AT_ONCE // 10
        cursor.execute(query.encode(), key, binary=True)
        for row in cursor:
            yield Event(*row)
