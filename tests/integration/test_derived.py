"""Bars against the trades: whatever the order of arrival, they are what plain arithmetic over all trades gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from collectors.derived import derive
from collectors.derived.ohlcv import DeriveRunningError
from collectors.errors import CryptopipError
from collectors.sync import target
from collectors.sync.channels import TRADES, copy_columns, create_stage, stage_name
from collectors.sync.identities import BY_TUPLE
from tests.conftest import fresh_database

pytestmark = pytest.mark.database

ROOT = Path(__file__).resolve().parents[2]
T0 = datetime(2099, 11, 1, 22, 30, tzinfo=UTC)
"""An hour and a half before midnight, so that trades cross hours and a day; of a time whose settled hours are kept."""
WIDTHS = {"1s": 1, "1m": 60, "1h": 3600, "1d": 86400}
Connection = psycopg.Connection[Any]


class Trade(NamedTuple):
    """Id and milliseconds after T0."""

    id: int
    ms: int
    instrument: int
    price: Decimal
    amount: Decimal

    @property
    def time(self) -> datetime:
        return T0 + timedelta(milliseconds=self.ms)


class Bar(NamedTuple):
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int


def bars_of(trades: Sequence[Trade]) -> dict[tuple[str, int, datetime], Bar]:
    """All resolutions, by plain arithmetic: every trade once, ordered by time and id."""
    bars = {}
    for resolution, width in WIDTHS.items():

        def key(trade: Trade, width: int = width) -> tuple[int, datetime]:
            second = int(trade.time.timestamp()) // width * width
            return trade.instrument, datetime.fromtimestamp(second, UTC)

        ordered = sorted(set(trades), key=lambda trade: (key(trade), trade.time, trade.id))
        for (instrument, time), group in groupby(ordered, key):
            of = list(group)
            prices = [trade.price for trade in of]
            volume = sum((trade.amount for trade in of), Decimal(0))
            turnover = sum((trade.price * trade.amount for trade in of), Decimal(0))
            bar = Bar(prices[0], max(prices), min(prices), prices[-1], volume, turnover, len(of))
            bars[resolution, instrument, time] = bar
    return bars


def stored(connection: Connection) -> dict[tuple[str, int, datetime], Bar]:
    rows = connection.execute(
        "SELECT resolution, instrument_id, time, open, high, low, close, volume, quote_volume, trades FROM ohlcv"
    )
    return {(row[0], row[1], row[2].astimezone(UTC)): Bar(*row[3:]) for row in rows}


def arrive(connection: Connection, trades: Sequence[Trade], *, has_ids: bool = True) -> None:
    """Merged as sync merges them, by its own code."""
    spec = TRADES if has_ids else BY_TUPLE["trades"]
    with connection.transaction():
        connection.execute(create_stage(spec))
        ordinals: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        rows = []
        for each in trades:
            ordinals[each[1:]] += 1
            trade_id = str(each.id) if has_ids else None
            row = [each.time, each.time, 1, each.instrument, True, trade_id, each.price, each.amount, None, None]
            rows.append(row if has_ids else [*row, ordinals[each[1:]]])
        connection.cursor().executemany(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                stage_name(spec), copy_columns(spec), sql.SQL(", ").join([sql.Placeholder()] * len(spec.columns))
            ),
            rows,
        )
        target.merge(connection, spec, "ing1")


def take_back(connection: Connection, trades: Sequence[Trade]) -> None:
    """What a superseded batch alone had contributed is taken out of history and digests, in one statement."""
    connection.execute(
        "WITH gone AS ("
        f" DELETE FROM trades AS t WHERE trade_id = ANY (%s)"
        f" RETURNING t.instrument_id, time_bucket('1 hour', t.time) AS hour, event_hash({TRADES.text}) AS hash),"
        " summed AS (SELECT instrument_id, hour, count(*) AS rows, sum(hash) AS hash FROM gone GROUP BY 1, 2)"
        " UPDATE digests AS d SET rows = d.rows - s.rows, hash = d.hash - s.hash FROM summed AS s"
        " WHERE d.instrument_id = s.instrument_id AND d.channel = 'trades' AND d.hour = s.hour",
        [[str(trade.id) for trade in trades]],
    )


@pytest.fixture(scope="module")
def lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def lake(lake_dsn: str) -> Iterator[Connection]:
    """As the login that sync and this have on a host."""
    writer = make_conninfo(lake_dsn, options="-c role=cryptopip_sync_writer -c timezone=Asia/Kolkata")
    with psycopg.connect(writer, autocommit=True) as connection:
        clear(connection)
        yield connection


def clear(connection: Connection) -> None:
    connection.execute(
        "SET ROLE postgres; TRUNCATE trades, digests, ohlcv_1s, ohlcv_1m, ohlcv_1h, ohlcv_1d, ohlcv_hours;"
        "SET ROLE cryptopip_sync_writer"
    )


prices = st.integers(1, 9).map(lambda n: Decimal(n) / 100)
histories = st.lists(
    # Few moments within many, so that seconds hold several trades and equal times meet; ids of one to five digits.
    st.tuples(
        st.sampled_from([0, 1, 500, 999, 1000, 59_999, 60_000, 1_799_999, 1_800_000, 5_399_999, 5_400_000, 9_000_000]),
        st.integers(1, 2),
        prices,
        prices,
    ),
    max_size=25,
).map(lambda rows: [Trade(7 + 3 * n**3, *row) for n, row in enumerate(rows)])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories, st.data())
def test_any_order_of_arrival_gives_the_bars_of_all_trades(
    lake: Connection, history: list[Trade], data: st.DataObject
) -> None:
    clear(lake)
    there: set[Trade] = set()
    order = data.draw(st.permutations(history + history[: len(history) // 3]))
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        arrive(lake, batch)
        there |= set(batch)
        if data.draw(st.booleans()):
            derive(lake, hours_at_once=data.draw(st.sampled_from([1, 2, 500])))
            assert stored(lake) == bars_of(list(there))
    superseded = data.draw(st.lists(st.sampled_from(history), max_size=5)) if history else []
    take_back(lake, superseded)
    derive(lake)
    assert stored(lake) == bars_of(list(there - set(superseded)))


def test_only_what_is_new_is_made_anew_and_a_second_run_does_nothing(lake: Connection) -> None:
    first = [Trade(n, 100 * n, 1, Decimal(n + 1), Decimal(1)) for n in range(1000)]
    arrive(lake, first)
    report = derive(lake)
    assert (report.hours, report.whole_hours, report.refused) == (1, 0, 0)
    more = [Trade(1000 + n, 100_000 + n, 1, Decimal(7), Decimal(1)) for n in range(5)]
    arrive(lake, more)
    report = derive(lake)
    # One second is new; its minute, hour and day have changed. The last second before was looked at and is the same.
    assert (report.hours, report.whole_hours, report.bars) == (1, 0, 4)
    assert stored(lake) == bars_of(first + more)
    assert derive(lake).hours == 0


def test_trades_before_what_is_settled_make_the_whole_hour_anew(lake: Connection) -> None:
    trades = [Trade(n, 1000 * n, 1, Decimal(n + 1), Decimal(1)) for n in range(50)]
    arrive(lake, trades)
    derive(lake)
    late = [Trade(99, 5500, 1, Decimal(1000), Decimal(1))]
    arrive(lake, late)
    assert derive(lake).whole_hours == 1
    assert stored(lake) == bars_of(trades + late)


def test_hours_long_settled_are_forgotten_and_made_whole_when_they_change(lake: Connection) -> None:
    ages = -73 * 365 * 86_400_000
    old = [Trade(n, ages + 1000 * n, 1, Decimal(n + 1), Decimal(1)) for n in range(50)]
    arrive(lake, old)
    derive(lake)
    assert lake.execute("SELECT FROM ohlcv_hours").fetchall() == []
    late = [Trade(99, ages + 5500, 1, Decimal(1000), Decimal(1))]
    arrive(lake, late)
    derive(lake)
    assert stored(lake) == bars_of(old + late)


def test_trades_without_ids_count_as_often_as_they_were(lake: Connection) -> None:
    twin = Trade(0, 10, 1, Decimal(5), Decimal(2))
    arrive(lake, [twin, twin, twin._replace(price=Decimal(4)), twin._replace(price=Decimal(6))], has_ids=False)
    derive(lake)
    assert stored(lake)["1s", 1, T0] == Bar(Decimal(4), Decimal(6), Decimal(4), Decimal(6), Decimal(8), Decimal(40), 4)


def test_hours_whose_trades_are_not_those_of_their_digest_keep_their_bars(lake: Connection, lake_dsn: str) -> None:
    trades = [Trade(n, 1000 * n, 1, Decimal(n + 1), Decimal(1)) for n in range(5)]
    arrive(lake, trades)
    derive(lake)
    lake.execute("DELETE FROM trades WHERE trade_id = '3'")
    arrive(lake, [Trade(9, 2, 1, Decimal(1), Decimal(1))])
    assert derive(lake).refused == 1
    assert derive(lake).refused == 1
    assert stored(lake) == bars_of(trades)
    done = subprocess.run(
        [sys.executable, "-m", "collectors", "derive", f"--dsn={lake_dsn}", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)["refused"]) == (1, 1)
    assert "derive --retry" in done.stderr
    lake.execute(
        "INSERT INTO trades SELECT time + INTERVAL '1 s', received_at, epoch, instrument_id, is_buy, '3', 4, 1, NULL,"
        " NULL, ingestor FROM trades WHERE trade_id = '2'"
    )
    assert derive(lake, retry=True).refused == 0
    assert stored(lake) == bars_of([*trades, Trade(9, 2, 1, Decimal(1), Decimal(1))])


def test_trades_that_are_merged_while_bars_are_made_are_not_passed_over(lake: Connection, lake_dsn: str) -> None:
    """Sync has noticed the hour and not committed: its trades cannot be seen, and its note must not be lost."""
    first, second = Trade(1, 0, 1, Decimal(1), Decimal(1)), Trade(2, 10, 1, Decimal(2), Decimal(1))
    arrive(lake, [first])
    with psycopg.connect(lake_dsn, autocommit=True) as sync:
        with sync.transaction():
            arrive(sync, [second])
            assert derive(lake).hours == 0, "the hour is locked, so it is left to the next run"
        assert derive(lake).hours == 1
    assert stored(lake) == bars_of([first, second])


def test_one_run_at_a_time(lake: Connection, lake_dsn: str) -> None:
    arrive(lake, [Trade(1, 0, 1, Decimal(1), Decimal(1))])
    with psycopg.connect(lake_dsn, autocommit=True) as other:
        caught: list[Exception] = []

        def run(_: Any) -> None:
            try:
                derive(other)
            except DeriveRunningError as error:
                caught.append(error)

        derive(lake, on_progress=run)
    assert len(caught) == 1


def test_a_database_without_the_tables_is_named(server_dsn: str) -> None:
    with (
        psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as other,
        pytest.raises(CryptopipError, match="has no digests, trades, ohlcv_hours"),
    ):
        derive(other)


@pytest.mark.parametrize("killed_after", [0.02, 0.1, 0.3])
def test_a_killed_run_leaves_nothing_that_the_next_does_not_mend(
    lake: Connection, lake_dsn: str, killed_after: float
) -> None:
    trades = [Trade(n, 4000 * n, 1 + n % 2, Decimal(n % 90 + 1), Decimal(1)) for n in range(20_000)]
    arrive(lake, trades)
    program = (
        "import sys, psycopg; from collectors.derived import derive;"
        f"c = psycopg.connect({lake_dsn!r}, autocommit=True); print('up', flush=True); derive(c, hours_at_once=1)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        threading.Timer(killed_after, lambda: os.kill(process.pid, signal.SIGKILL)).start()
        process.wait()
    lake.execute("SELECT pg_advisory_lock(%s)", [int.from_bytes(b"cpipderi")])  # until the server has seen the death
    lake.execute("SELECT pg_advisory_unlock_all()")
    row = lake.execute("SELECT count(*) FROM ohlcv_hours WHERE state = 'stale'").fetchone()
    assert row is not None
    assert row[0] > 0, "it had ended already: this run proved nothing"
    derive(lake)
    assert stored(lake) == bars_of(trades)
