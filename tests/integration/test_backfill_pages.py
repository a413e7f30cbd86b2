"""Any gaps, any pages, any reach, killed at any page: the history is the truth as far as the exchange tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collectors.backfill import BackfillReport, backfill
from collectors.backfill.plan import Plan
from collectors.config import Endpoint
from collectors.coverage import Query, check_continuity
from collectors.events import Trade
from collectors.sync.identities import specs
from tests.conftest import fresh_database

pytestmark = pytest.mark.database
T0 = datetime(2026, 11, 1, 10, 30, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LIFE = UUID(int=1)
SECONDS = 60


class KilledError(Exception):
    """Stands for the end of the process: nothing behind it runs."""


class Told:
    """An exchange's history: ids from ``oldest`` on, in pages of at most ``size``; dies at page ``dies_at``.

    With ``is_kept`` that page is committed before.
    """

    def __init__(
        self, trades: list[Trade], oldest: int, size: int, dies_at: int | None, *, is_kept: bool = False
    ) -> None:
        self.trades, self.oldest, self.size, self.left = trades, oldest, size, dies_at
        self.is_kept = is_kept

    async def page(self, plan: Plan, below: int, count: int) -> list[Trade]:
        if self.left == 0 and not self.is_kept:
            raise KilledError
        self.left = None if self.left is None else self.left - 1
        known = [trade for trade in self.trades if self.oldest <= int(trade.trade_id or 0) < below]
        return known[-min(self.size, count) :]

    def die(self, _: object) -> None:
        """Behind a page that was committed."""
        if self.left is not None and self.left < 0:
            raise KilledError


@pytest.fixture(scope="module")
def lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def lake(lake_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lake_dsn, autocommit=True, client_encoding="UTF8") as connection:
        yield connection


def prepare(
    lake: psycopg.Connection[Any], exchange: str, trades: list[Trade], spans: list[tuple[int, int]], proof: str
) -> None:
    """A datalake in which somebody listened in the spans of seconds and received all trades of them."""
    lake.execute(
        "TRUNCATE recording, instruments, sources, watermarks, connections, coverage, digests, trades, backfills,"
        " ohlcv_hours, sync_conflicts CASCADE"
    )
    lake.execute(
        "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
        " VALUES (1, %s, 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')",
        [exchange],
    )
    lake.execute("INSERT INTO sources (incarnation, ingestor) VALUES (%s, 'ing1')", [LIFE])
    lake.execute("INSERT INTO recording VALUES (1, 'trades', tstzrange(%s, %s))", [T0, T0 + timedelta(seconds=SECONDS)])
    for number, (start, end) in enumerate(spans, 1):
        inside = [trade for trade in trades if start <= seconds_of(trade) <= end]
        lake.execute(
            "INSERT INTO coverage (incarnation, id, stream, ingestor, epoch, instrument_id, channel, started_at,"
            " ended_at, first_id, last_id, first_time, last_time, proof, ended_by, batch)"
            " VALUES (%s, %s, 's', 'ing1', %s, 1, 'trades', %s, %s, %s, %s, %s, %s, %s, 'disconnect', 1)",
            [
                *(LIFE, number, number, T0 + timedelta(seconds=start), T0 + timedelta(seconds=end)),
                *((inside[0].trade_id, inside[-1].trade_id) if inside else (None, None)),
                *((time_of(inside[0]), time_of(inside[-1])) if inside else (None, None)),
                proof,
            ],
        )
        for trade in inside:
            lake.execute(
                "INSERT INTO trades (time, received_at, epoch, instrument_id, is_buy, trade_id, price, amount,"
                " ingestor) VALUES (%s, %s, %s, 1, %s, %s, %s, %s, 'ing1')",
                [time_of(trade), time_of(trade), number, trade.is_buy, trade.trade_id, trade.price, trade.amount],
            )


def time_of(trade: Trade) -> datetime:
    return EPOCH + timedelta(microseconds=trade.time // 1000)


def seconds_of(trade: Trade) -> float:
    return (time_of(trade) - T0).total_seconds()


def trades_of(places: list[int], stride: int) -> list[Trade]:
    """One trade for each place in time (tenths of a second); several may share one."""
    start = (T0 - EPOCH) // timedelta(microseconds=1) * 1000
    return [
        Trade("BTCUSDT", start + place * 100_000_000, str(1000 + n * stride), n % 2 == 0, f"{n}.10", f"{n % 3}.500")
        for n, place in enumerate(sorted(places))
    ]


def run(lake: psycopg.Connection[Any], told: Told) -> BackfillReport | None:
    @asynccontextmanager
    async def asking(_: str, __: Endpoint) -> AsyncIterator[Any]:
        yield told

    try:
        until = T0 + timedelta(seconds=SECONDS)
        return backfill(lake, Query(until=until), {}, asking=asking, on_progress=told.die)
    except* KilledError:
        pass
    return None


@st.composite
def spans_of_time(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Spans of seconds that do not touch."""
    cuts = sorted(draw(st.sets(st.integers(1, SECONDS - 1), min_size=2, max_size=8)))
    return list(zip(cuts[::2], cuts[1::2], strict=False))


@pytest.mark.parametrize("exchange", ["binance", "okx"])
def test_a_run_killed_before_its_verdict_gives_it_the_next_time(lake: psycopg.Connection[Any], exchange: str) -> None:
    trades = trades_of(list(range(0, 10 * SECONDS, 10)), 1)
    prepare(lake, exchange, trades, [(0, 20), (31, 60)], "sequence" if exchange == "binance" else "heartbeat")
    lacking = [trade for trade in trades if seconds_of(trade) != 25]
    told = lacking if exchange == "binance" else trades
    assert run(lake, Told(told, 0, 100, 0, is_kept=True)) is None
    report = run(lake, Told(told, 0, 100, None))
    assert report is not None
    states = {gap.state for gap in report.gaps if gap.plan.start == T0 + timedelta(seconds=20)}
    assert states == {"out_of_reach" if exchange == "binance" else "mended"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    exchange=st.sampled_from(["binance", "okx"]),
    places=st.lists(st.integers(-50, 10 * SECONDS), min_size=1, max_size=80),
    stride=st.integers(1, 3),
    spans=spans_of_time(),
    size=st.integers(1, 30),
    reach=st.none() | st.integers(0, 80),
    deaths=st.lists(st.integers(0, 6), max_size=3),
)
@example(exchange="binance", places=[0, 30], stride=1, spans=[(1, 2), (3, 4)], size=1, reach=None, deaths=[])
@example(exchange="okx", places=[0, 30], stride=1, spans=[(1, 2), (3, 4)], size=1, reach=None, deaths=[])
def test_the_history_is_the_truth_as_far_as_the_exchange_tells_it(  # noqa: PLR0917 - as many as are drawn
    lake: psycopg.Connection[Any],
    exchange: str,
    places: list[int],
    stride: int,
    spans: list[tuple[int, int]],
    size: int,
    reach: int | None,
    deaths: list[int],
) -> None:
    is_consecutive = exchange == "binance"
    trades = trades_of(places, 1 if is_consecutive else stride)
    ids = [int(trade.trade_id or 0) for trade in trades]
    oldest = ids[min(reach, len(ids) - 1)] if reach is not None else 0
    prepare(lake, exchange, trades, spans, "sequence" if is_consecutive else "heartbeat")
    listened = lake.execute("SELECT count(*) FROM trades").fetchone()
    for death in deaths:
        run(lake, Told(trades, oldest, size, death))
    report = run(lake, Told(trades, oldest, size, None))
    assert report is not None

    def is_known(trade: Trade) -> bool:
        return any(start <= seconds_of(trade) <= end for start, end in spans)

    known = [trade for trade in trades if is_known(trade)]
    last = max((seconds_of(trade) for trade in known), default=-1.0)
    first_span = spans[0][0]
    wanted = [
        trade
        for trade in trades
        if 0 <= seconds_of(trade) <= last and (is_known(trade) or int(trade.trade_id or 0) >= oldest)
    ]
    rows = lake.execute(
        "SELECT trade_id, time, is_buy, price::text, amount::text, ingestor FROM trades ORDER BY trade_id::bigint"
    ).fetchall()
    expected = [
        (
            *(trade.trade_id, time_of(trade), trade.is_buy, trade.price, trade.amount),
            "ing1" if is_known(trade) else "backfill:rest",
        )
        for trade in wanted
    ]
    # Ahead of the first trade known nothing tells where a gap behind a listener that heard nothing began.
    silent = [s for s in spans if not any(s[0] <= seconds_of(t) <= s[1] for t in trades)]
    if not silent:
        assert rows == expected
    assert {row[0] for row in rows} <= {row[0] for row in expected}
    assert listened is not None
    assert len(rows) - listened[0] == lake.execute("SELECT coalesce(sum(rows), 0) FROM backfills").fetchone()[0]  # type: ignore[index]

    have = {row[0] for row in rows}
    for gap in check_continuity(lake, Query(until=T0 + timedelta(seconds=SECONDS)))[0].gaps:
        inside = [t for t in trades if gap.start < time_of(t) < gap.end and seconds_of(t) >= 0]
        if gap.is_mended:
            assert all(trade.trade_id in have for trade in inside), f"{gap} is called mended"
        elif oldest == 0 and not silent and gap.first_id_after is not None and gap.start > T0:
            raise AssertionError(f"{gap} is not called mended, though the exchange told all of it")
    assert first_span > 0
    (trades_spec,) = (spec for spec in specs(exchange) if spec.name == "trades")
    digest = "SELECT coalesce(sum(rows), 0), coalesce(sum(hash), 0) FROM digests"
    added = lake.execute(
        f"SELECT count(*), coalesce(sum(event_hash({trades_spec.text})), 0) FROM trades AS t"
        " WHERE ingestor = 'backfill:rest'".encode()
    ).fetchall()
    assert lake.execute(digest).fetchall() == added

    # Where a listener heard nothing, the first trade that a run brings may be what the next gap needed for its start.
    for _ in spans if silent else ():
        run(lake, Told(trades, oldest, size, None))
    again = run(lake, Told(trades, oldest, size, None))
    assert again is not None
    assert again.rows == 0
    assert not any(gap.is_news for gap in again.gaps)
