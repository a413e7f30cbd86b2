"""The datalake against the truth where an exchange sends no ids: a connection's events are its own, and one leads."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import psycopg
from msgspec import Struct

from collectors.simulator import Truth
from collectors.simulator.engine import Level
from tests.integration.harness.fleet import Fleet
from tests.integration.harness.rows import Row, Sent, columns, held_rows, true_rows

IN_FLIGHT_US = 2_000_000
"""An event may be on its way, unheard, when the one before it is heard: this long where all share two busy cores."""
_LEADS = """
SELECT (extract(epoch FROM lower(stretch)) * 1000000)::bigint, (extract(epoch FROM upper(stretch)) * 1000000)::bigint,
    ingestor, epoch
FROM leads(%s, %s, tstzrange(to_timestamp(%s::numeric / 1000000), to_timestamp(%s::numeric / 1000000), '[]'))
"""
_COVERED = """
SELECT ingestor, epoch, (extract(epoch FROM lower(interval)) * 1000000)::bigint,
    (extract(epoch FROM upper(interval)) * 1000000)::bigint
FROM coverage_intervals WHERE instrument_id = %s AND channel = %s ORDER BY 3
"""
_SNAPSHOTS = """
SELECT bid_prices::text[], bid_amounts::text[], ask_prices::text[], ask_amounts::text[]
FROM book_events WHERE instrument_id = %s AND is_snapshot
"""


class Stretch(Struct, frozen=True):
    """From when to when (µs since 1970) which connection covers, or leads."""

    start: int
    end: int
    ingestor: str
    epoch: int

    def holds(self, at: int) -> bool:
        """Whether what was sent at that moment must be there: not on its way at either end."""
        return self.start <= at < self.end - IN_FLIGHT_US


def covered(connection: psycopg.Connection[Any], instrument: int, channel: str) -> list[Stretch]:
    """All coverage of an instrument and channel."""
    rows = connection.execute(_COVERED.encode(), (instrument, channel)).fetchall()
    return [Stretch(start, end, ingestor, epoch) for ingestor, epoch, start, end in rows]


def leads(connection: psycopg.Connection[Any], instrument: int, channel: str, since: int, until: int) -> list[Stretch]:
    """Which connection leads when, in receive time (µs)."""
    rows = connection.execute(_LEADS.encode(), (instrument, channel, since, until)).fetchall()
    return [Stretch(*row) for row in rows]


def assert_epochs(fleet: Fleet, channel: str, since_ns: int) -> int:
    """Nothing is held that never happened, and each connection holds, once, all that was sent since then while it
    covered.

    Returns how many events that were.
    """
    truth = Truth.read(fleet.exchange.truth_folder)
    proven = 0
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            true = true_rows(truth.symbols[symbol], channel, fleet.wire)
            happened = Counter(sent.row for sent in true)
            stretches = covered(connection, instrument, channel)
            assert stretches, f"{symbol} {channel}: never covered"
            for epoch in {(one.ingestor, one.epoch) for one in stretches}:
                found = held_rows(connection, instrument, channel, fleet.wire, epoch=epoch)
                extra = Counter(found) - happened
                assert not extra, f"{symbol} {channel} {epoch}: never happened, or twice: {list(extra)[:3]}"
                mine = [one for one in stretches if (one.ingestor, one.epoch) == epoch]
                late = [sent for sent in true if sent.sent_ns >= since_ns]
                wanted = Counter(sent.row for sent in late if any(one.holds(sent.sent_ns // 1000) for one in mine))
                missing = wanted - Counter(found)
                assert not missing, f"{symbol} {channel} {epoch}: {missing.total()} missing, first {list(missing)[:3]}"
                proven += wanted.total()
    return proven


def assert_uncovered_is_listed(fleet: Fleet, channel: str, since_ns: int) -> int:
    """Read through the lead, all that was sent since then is there, but what lies in a gap or at a change of the lead.

    Returns how many events lie there.
    """
    truth = Truth.read(fleet.exchange.truth_folder)
    beyond = 0
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            true = [one for one in true_rows(truth.symbols[symbol], channel, fleet.wire) if one.sent_ns >= since_ns]
            until = true[-1].sent_ns // 1000 + 60_000_000
            led = leads(connection, instrument, channel, since_ns // 1000, until)
            found: Counter[Row] = Counter()
            for one in led:
                epoch = (one.ingestor, one.epoch)
                found.update(
                    held_rows(connection, instrument, channel, fleet.wire, epoch=epoch, received=(one.start, one.end))
                )
            wanted = [sent for sent in true if any(one.holds(sent.sent_ns // 1000) for one in led)]
            missing = Counter(sent.row for sent in wanted) - found
            assert not missing, f"{symbol} {channel}: {missing.total()} missing of the lead, first {list(missing)[:3]}"
            assert len(wanted) > len(true) // 4, f"{symbol} {channel}: only {len(wanted)} of {len(true)} are covered"
            beyond += len(true) - len(wanted)
    return beyond


def assert_snapshots(fleet: Fleet) -> None:
    """Every whole book is one that the exchange served."""
    truth = Truth.read(fleet.exchange.truth_folder)
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            served = {one.update_id for one in truth.symbols[symbol].snapshots}
            books = {
                str((*columns(bids), *columns(asks)))
                for book in truth.books_at(symbol, served)
                for bids, asks in (book.best(fleet.wire.depth),)
            }
            rows = connection.execute(_SNAPSHOTS.encode(), (instrument,)).fetchall()
            assert rows, f"{symbol}: no snapshot in the datalake"
            assert {str(row) for row in rows} <= books, f"{symbol}: a snapshot that was never served"


def assert_books_of_lead(fleet: Fleet, *, since_ns: int, whole_from_ns: int, samples: int, seed: int) -> None:
    """At random moments the lead's book is the exchange's, or the moment lies in a listed gap; most do not.

    Before ``whole_from_ns`` only the best ten levels are compared: what a checksum vouches for.
    """
    truth = Truth.read(fleet.exchange.truth_folder)
    random = Random(seed)
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            events = [one for one in truth.symbols[symbol].book_events if one.sent_ns >= since_ns]
            true = [Sent(one.sent_ns, one.event.time, one.event.last_id, ()) for one in events]
            until = true[-1].sent_ns // 1000 + 60_000_000
            led = leads(connection, instrument, "book_events", since_ns // 1000, until)
            chosen = sorted(random.sample(true, min(samples, len(true))), key=lambda sent: sent.last_id)
            equal = 0
            for sent, book in zip(chosen, truth.books_at(symbol, [one.last_id for one in chosen]), strict=True):
                at = sent.first_id * 1000  # the exchange's time, µs
                if not any(one.holds(at) for one in led):
                    continue
                depth = 100_000 if sent.sent_ns >= whole_from_ns else 10
                rows = connection.execute(
                    "SELECT unknown, side, price::text, amount::text"
                    " FROM book_at(%s, to_timestamp(%s::numeric / 1000000), %s)",
                    (instrument, at, depth),
                ).fetchall()
                assert rows[0][0] is None, f"{symbol} at {at}: {rows[0][0]}"
                bids, asks = book.best(depth)
                assert _side(rows, "bid") == bids, f"{symbol} at {at}"
                assert _side(rows, "ask") == asks, f"{symbol} at {at}"
                equal += 1
            assert equal > len(chosen) // 4, f"{symbol}: only {equal} of {len(chosen)} moments are covered"


def _side(rows: list[Row], side: str) -> list[Level]:
    return [(row[2], row[3]) for row in rows if row[1] == side]
