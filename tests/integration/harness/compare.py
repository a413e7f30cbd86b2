"""The datalake against the truth: whole rows, every digit."""

from __future__ import annotations

from random import Random
from typing import Any

import psycopg
from msgspec import Struct

from collectors.simulator import Truth
from collectors.simulator.engine import Level
from collectors.simulator.truth import SymbolTruth
from tests.integration.harness.fleet import CHANNELS, Fleet

Row = tuple[Any, ...]
DELIVERY_S = 5.0
"""An event is received this soon after it was sent, with all processes on one small machine."""

IN_FLIGHT_S = 1.0
"""An event may be on its way, unheard, when the one before it is heard: this long where all share two busy cores."""

_TRADES = """
SELECT trade_id::bigint, (extract(epoch FROM time) * 1000000)::bigint, is_buy, price::text, amount::text
FROM trades WHERE instrument_id = %s ORDER BY trade_id::bigint
"""
_QUOTES = """
SELECT update_id, bid_price::text, bid_amount::text, ask_price::text, ask_amount::text
FROM quotes WHERE instrument_id = %s ORDER BY update_id
"""
# Where updates name the id before them rather than their first one, that tells the same.
_UPDATES = """
SELECT coalesce(first_id, previous_id + 1) AS first_id, last_id, (extract(epoch FROM time) * 1000000)::bigint,
    bid_prices::text[], bid_amounts::text[], ask_prices::text[], ask_amounts::text[]
FROM book_events WHERE instrument_id = %s AND NOT is_snapshot ORDER BY last_id, 1
"""
_SNAPSHOTS = """
SELECT last_id, bid_prices::text[], bid_amounts::text[], ask_prices::text[], ask_amounts::text[]
FROM book_events WHERE instrument_id = %s AND is_snapshot ORDER BY last_id
"""
_QUERIES = {"trades": _TRADES, "quotes": _QUOTES, "book_events": _UPDATES}


class Sent(Struct, frozen=True):
    """A true event: when it was sent (ns since 1970), its first and last id, and the row it must become."""

    sent_ns: int
    first_id: int
    last_id: int
    row: Row


def true_rows(truth: SymbolTruth, channel: str) -> list[Sent]:
    """What the datalake must hold of one symbol and channel had somebody listened all along."""
    match channel:
        case "trades":
            return [
                Sent(t.sent_ns, e.trade_id, e.trade_id, (e.trade_id, e.time * 1000, e.is_buy, e.price, e.amount))
                for t in truth.trades
                for e in (t.event,)
            ]
        case "quotes":
            return [
                Sent(
                    t.sent_ns,
                    e.update_id,
                    e.update_id,
                    (e.update_id, e.bid_price, e.bid_amount, e.ask_price, e.ask_amount),
                )
                for t in truth.quotes
                for e in (t.event,)
            ]
        case _:
            return [
                Sent(
                    t.sent_ns,
                    e.first_id,
                    e.last_id,
                    (e.first_id, e.last_id, e.time * 1000, *_columns(e.bids), *_columns(e.asks)),
                )
                for t in truth.book_events
                for e in (t.event,)
            ]


def lake_rows(connection: psycopg.Connection[Any], instrument: int, channel: str) -> list[Row]:
    """What the datalake holds, in order of id."""
    return connection.execute(_QUERIES[channel].encode(), (instrument,)).fetchall()


def assert_equal(fleet: Fleet, since_ns: int) -> dict[str, int]:
    """Every true event sent since then is in the datalake once and exactly, and there is nothing else; rows by channel.

    Events sent before may be there or not (nobody promised to listen yet), but never another row than the true one.
    """
    truth = Truth.read(fleet.exchange.truth_folder)
    counted = dict.fromkeys(CHANNELS, 0)
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            for channel in CHANNELS:
                true = true_rows(truth.symbols[symbol], channel)
                rows = lake_rows(connection, instrument, channel)
                wanted = [sent.row for sent in true if sent.sent_ns >= since_ns]
                assert wanted, f"{symbol} {channel}: nothing happened, so nothing was proven"
                first = next(sent.first_id for sent in true if sent.sent_ns >= since_ns)
                _same(f"{symbol} {channel}", [row for row in rows if row[0] >= first], wanted)
                before = [sent.row for sent in true if sent.sent_ns < since_ns]
                early = [row for row in rows if row[0] < first]
                assert len(set(map(str, early))) == len(early), f"{symbol} {channel}: rows twice"
                assert not set(map(str, early)) - set(map(str, before)), f"{symbol} {channel}: rows that never happened"
                counted[channel] += len(wanted)
            _check_quote_times(connection, instrument, truth.symbols[symbol], is_sent=fleet.wire.exchange != "binance")
            _check_snapshots(connection, instrument, truth, symbol, fleet.wire.depth)
    return counted


def _same(what: str, rows: list[Row], wanted: list[Row]) -> None:
    if rows == wanted:
        return
    have, want = list(map(str, rows)), list(map(str, wanted))
    missing, extra = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    raise AssertionError(
        f"{what}: {len(rows)} rows, expected {len(wanted)}; {len(missing)} missing, first {missing[:3]};"
        f" {len(extra)} wrong, first {extra[:3]}; {len(have) - len(set(have))} twice"
    )


def _check_quote_times(
    connection: psycopg.Connection[Any], instrument: int, truth: SymbolTruth, *, is_sent: bool
) -> None:
    """Theirs is the exchange's where it sends one; else, as at Binance, when the first ingestor received them."""
    sent = {true.event.update_id: true.sent_ns // 1000 for true in truth.quotes}
    true_us = {true.event.update_id: true.event.time * 1000 for true in truth.quotes}
    query = "SELECT update_id, (extract(epoch FROM time) * 1000000)::bigint FROM quotes WHERE instrument_id = %s"
    for update_id, time_us in connection.execute(query.encode(), (instrument,)):
        if is_sent:
            assert time_us == true_us[update_id], f"quote {update_id} at {time_us}, not {true_us[update_id]}"
        else:
            assert sent[update_id] <= time_us < sent[update_id] + DELIVERY_S * 1e6, f"quote {update_id} at {time_us}"


def _check_snapshots(
    connection: psycopg.Connection[Any], instrument: int, truth: Truth, symbol: str, depth: int
) -> None:
    """Every snapshot is the true book down to the venue's horizon, and was really served."""
    rows = connection.execute(_SNAPSHOTS.encode(), (instrument,)).fetchall()
    assert rows, f"{symbol}: no snapshot in the datalake"
    assert len({row[0] for row in rows}) == len(rows), f"{symbol}: snapshots twice"
    assert {row[0] for row in rows} <= {served.update_id for served in truth.symbols[symbol].snapshots}
    for row, book in zip(rows, truth.books_at(symbol, [row[0] for row in rows]), strict=True):
        bids, asks = book.best(depth)
        assert row == (book.update_id, *_columns(bids), *_columns(asks)), f"{symbol}: snapshot {row[0]}"


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
            sent = [t for t in truth.symbols[symbol].book_events if t.sent_ns >= since_ns]
            known = [t.event.last_id for t in sent if t.event.last_id >= first]
            assert len(known) > len(sent) // 2, f"{symbol}: the first snapshot came late"
            chosen = sorted(random.sample(known, min(samples // len(fleet.instruments), len(known))))
            for book in truth.books_at(symbol, chosen):
                rows = connection.execute(
                    "SELECT unknown, side, price::text, amount::text, last_id, bid_horizon::text, ask_horizon::text"
                    " FROM book_at_update(%s, %s, 100000)",
                    (instrument, book.update_id),
                ).fetchall()
                assert rows[0][0] is None, f"{symbol} at {book.update_id}: {rows[0][0]}"
                assert {row[4] for row in rows} == {book.update_id}
                bids, asks = book.best(100_000)
                horizons = rows[0][5], rows[0][6]
                wanted_bids = [level for level in bids if _ticks(level[0]) >= _ticks(horizons[0])]
                wanted_asks = [level for level in asks if _ticks(level[0]) <= _ticks(horizons[1])]
                enough = min(1000, fleet.wire.depth // 2)
                assert len(wanted_bids) > enough, "the horizon cuts nearly all"
                assert len(wanted_asks) > enough, "the horizon cuts nearly all"
                assert [(row[2], row[3]) for row in rows if row[1] == "bid"] == wanted_bids, (
                    f"{symbol} {book.update_id}"
                )
                assert [(row[2], row[3]) for row in rows if row[1] == "ask"] == wanted_asks, (
                    f"{symbol} {book.update_id}"
                )


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
            for channel in CHANNELS:
                true = [sent for sent in true_rows(truth.symbols[symbol], channel) if sent.sent_ns >= since_ns]
                rows = {str(row) for row in lake_rows(connection, instrument, channel)}
                missing = [sent for sent in true if str(sent.row) not in rows]
                assert not rows - {str(sent.row) for sent in true_rows(truth.symbols[symbol], channel)}
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


def _columns(levels: list[Level]) -> tuple[list[str], list[str]]:
    return [price for price, _ in levels], [amount for _, amount in levels]


def _ticks(price: str) -> int:
    """Prices of one symbol compare as integers: all have eight decimals."""
    return int(price.replace(".", ""))
