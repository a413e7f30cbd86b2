"""The datalake against the truth: whole rows, every digit."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import psycopg
from msgspec import Struct

from collectors.simulator import Truth
from collectors.simulator.truth import SymbolTruth
from tests.integration.harness.fleet import Fleet
from tests.integration.harness.rows import Row, columns, engine_ids, held_rows, ticks, true_rows

DELIVERY_S = 5.0
"""An event is received this soon after it was sent, with all processes on one small machine."""

IN_FLIGHT_S = 1.0
"""An event may be on its way, unheard, when the one before it is heard: this long where all share two busy cores."""

_SNAPSHOTS = """
SELECT last_id, bid_prices::text[], bid_amounts::text[], ask_prices::text[], ask_amounts::text[]
FROM book_events WHERE instrument_id = %s AND is_snapshot ORDER BY last_id
"""


def assert_equal(fleet: Fleet, since_ns: int) -> dict[str, int]:
    """Every true event sent since then is in the datalake once and exactly, and there is nothing else; rows by channel.

    Events sent before may be there or not (nobody promised to listen yet), but never another row than the true one.
    Channels whose events belong to their connection are left out: see epochs.
    """
    truth = Truth.read(fleet.exchange.truth_folder)
    counted = dict.fromkeys(map(str, fleet.shared_channels), 0)
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            for channel in fleet.shared_channels:
                true = true_rows(truth.symbols[symbol], channel, fleet.wire)
                wanted = Counter(sent.row for sent in true if sent.sent_ns >= since_ns)
                early = Counter(sent.row for sent in true if sent.sent_ns < since_ns)
                assert wanted, f"{symbol} {channel}: nothing happened, so nothing was proven"
                _same(
                    f"{symbol} {channel}",
                    Counter(held_rows(connection, instrument, channel, fleet.wire)),
                    wanted,
                    early,
                )
                counted[channel] += wanted.total()
            if "quotes" in fleet.shared_channels and not fleet.wire.quote_times:
                _check_quote_times(connection, instrument, truth.symbols[symbol])
            if "book_events" in fleet.shared_channels:
                _check_snapshots(connection, instrument, truth, symbol, fleet)
    return counted


def _same(what: str, have: Counter[Row], wanted: Counter[Row], early: Counter[Row]) -> None:
    """As often as it happened, each: two equal fills are two rows where the exchange sends no ids."""
    missing, extra = wanted - have, have - wanted - early
    assert not missing, f"{what}: {missing.total()} rows of {wanted.total()} missing, first {_first(missing)}"
    assert not extra, f"{what}: {extra.total()} rows wrong or twice, first {_first(extra)}"


def _first(rows: Counter[Row]) -> str:
    return " ".join(str(row)[:300] for row in list(rows)[:3])


def _check_quote_times(connection: psycopg.Connection[Any], instrument: int, truth: SymbolTruth) -> None:
    """Where the exchange sends none, a quote's time is when the first ingestor received it."""
    sent = {true.event.update_id: true.sent_ns // 1000 for true in truth.quotes}
    query = "SELECT update_id, (extract(epoch FROM time) * 1000000)::bigint FROM quotes WHERE instrument_id = %s"
    for update_id, time_us in connection.execute(query.encode(), (instrument,)):
        assert sent[update_id] <= time_us < sent[update_id] + DELIVERY_S * 1e6, f"quote {update_id} at {time_us}"


def _check_snapshots(
    connection: psycopg.Connection[Any], instrument: int, truth: Truth, symbol: str, fleet: Fleet
) -> None:
    """Every snapshot is the true book down to the venue's horizon, and was really served."""
    rows = connection.execute(_SNAPSHOTS.encode(), (instrument,)).fetchall()
    assert rows, f"{symbol}: no snapshot in the datalake"
    assert len({row[0] for row in rows}) == len(rows), f"{symbol}: snapshots twice"
    engine_id = engine_ids(truth.symbols[symbol], fleet.wire)
    found = [engine_id.get(row[0], row[0]) for row in rows]
    assert set(found) <= {served.update_id for served in truth.symbols[symbol].snapshots}
    for row, book in zip(rows, truth.books_at(symbol, found), strict=True):
        bids, asks = book.best(fleet.wire.depth)
        assert row[1:] == (*columns(bids), *columns(asks)), f"{symbol}: snapshot {row[0]}"


def assert_books(fleet: Fleet, *, since_ns: int, samples: int, seed: int) -> None:
    """At random update ids the datalake's book is the exchange's, down to the horizon of what the exchange served."""
    truth = Truth.read(fleet.exchange.truth_folder)
    random = Random(seed)
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            (first,) = connection.execute(
                "SELECT min(last_id) FROM book_events WHERE instrument_id = %s AND is_snapshot", (instrument,)
            ).fetchone() or (None,)
            assert first is not None, f"{symbol}: no snapshot in the datalake"
            of = truth.symbols[symbol]
            sent = [one for one in true_rows(of, "book_events", fleet.wire) if one.sent_ns >= since_ns]
            known = [one.last_id for one in sent if one.last_id >= first]
            assert len(known) > len(sent) // 2, f"{symbol}: the first snapshot came late"
            wanted = samples // len(fleet.instruments)
            assert len(known) >= wanted, f"{symbol}: {len(known)} updates, {wanted} were to be compared"
            chosen = sorted(random.sample(known, wanted))
            engine_id = engine_ids(of, fleet.wire)
            books = truth.books_at(symbol, [engine_id[one] for one in chosen])
            for update_id, book in zip(chosen, books, strict=True):
                rows = connection.execute(
                    "SELECT unknown, side, price::text, amount::text, last_id, bid_horizon::text, ask_horizon::text"
                    " FROM book_at_update(%s, %s, 100000)",
                    (instrument, update_id),
                ).fetchall()
                assert rows[0][0] is None, f"{symbol} at {update_id}: {rows[0][0]}"
                assert {row[4] for row in rows} == {update_id}
                bids, asks = book.best(100_000)
                horizons = rows[0][5], rows[0][6]
                wanted_bids = [level for level in bids if ticks(level[0]) >= ticks(horizons[0])]
                wanted_asks = [level for level in asks if ticks(level[0]) <= ticks(horizons[1])]
                enough = min(1000, fleet.wire.depth // 10, fleet.levels // 2)
                assert len(wanted_bids) > enough, "the horizon cuts nearly all"
                assert len(wanted_asks) > enough, "the horizon cuts nearly all"
                assert [(row[2], row[3]) for row in rows if row[1] == "bid"] == wanted_bids, f"{symbol} {update_id}"
                assert [(row[2], row[3]) for row in rows if row[1] == "ask"] == wanted_asks, f"{symbol} {update_id}"


class MissingReport(Struct, frozen=True):
    """What is missing of one symbol and channel, and the gaps it lies in: (start, end) of receive time, µs."""

    symbol: str
    channel: str
    missing: int
    gaps: list[tuple[int, int]]


def assert_missing_lies_in_gaps(fleet: Fleet, since_ns: int, until_ns: int) -> list[MissingReport]:
    """Every true event that the datalake has not lies in a listed gap, by time and by id, and nothing else is there.

    By time: it was sent before the gap's end (whoever listens at the end receives what is sent later) and not long
    before its start. By id: it lies behind the last id of every coverage that ended before, and before the first id of
    every coverage that began after.
    """
    truth = Truth.read(fleet.exchange.truth_folder)
    reports = []
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            for channel in fleet.channels:
                happened = true_rows(truth.symbols[symbol], channel, fleet.wire)
                true = [sent for sent in happened if sent.sent_ns >= since_ns]
                rows = {str(row) for row in held_rows(connection, instrument, channel, fleet.wire)}
                missing = [sent for sent in true if str(sent.row) not in rows]
                assert not rows - {str(sent.row) for sent in happened}
                found = gaps(connection, instrument, channel, since_ns, until_ns)
                covered = _covered_ids(connection, instrument, channel)
                for sent in missing:
                    sent_us = sent.sent_ns // 1000
                    assert any(start - IN_FLIGHT_S * 1e6 <= sent_us <= end for start, end in found), (
                        f"{symbol} {channel}: {sent.row[0]}, sent at {sent_us}, is missing outside of the gaps {found}"
                    )
                    inside = [ids for ids in covered if ids[0] < sent.last_id <= ids[1]]
                    assert not inside, f"{symbol} {channel}: {sent.row[0]} is missing inside the coverage {inside}"
                reports.append(MissingReport(symbol, channel, len(missing), found))
    return reports


def assert_no_gap(fleet: Fleet, since_ns: int, until_ns: int) -> None:
    """Somebody was listening to every symbol and channel all along (ns since 1970)."""
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            for channel in fleet.channels:
                found = gaps(connection, instrument, channel, since_ns, until_ns)
                assert found == [], f"{symbol} {channel}: {found} in {since_ns} to {until_ns}"


def gaps(
    connection: psycopg.Connection[Any], instrument: int, channel: str, since_ns: int, until_ns: int
) -> list[tuple[int, int]]:
    """When nobody listened, of the stretch of receive time given in ns: (start, end) in µs since 1970."""
    query = """
        SELECT (extract(epoch FROM lower(gap)) * 1000000)::bigint, (extract(epoch FROM upper(gap)) * 1000000)::bigint
        FROM unnest(gaps(%s, %s, tstzrange(
            to_timestamp(%s::numeric / 1000000), to_timestamp(%s::numeric / 1000000), '[]'))) AS gap ORDER BY 1
    """
    return connection.execute(query.encode(), (instrument, channel, since_ns // 1000, until_ns // 1000)).fetchall()


def _covered_ids(connection: psycopg.Connection[Any], instrument: int, channel: str) -> list[tuple[int, int]]:
    """First and last id of each ended coverage, merged over ingestors where both saw something."""
    query = """
        SELECT first_id::bigint, last_id::bigint FROM coverage_intervals
        WHERE instrument_id = %s AND channel = %s AND first_id IS NOT NULL AND last_id IS NOT NULL ORDER BY 1
    """
    return connection.execute(query.encode(), (instrument, channel)).fetchall()
