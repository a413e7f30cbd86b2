"""Books at full hours: whatever arrives when, they change no answer, and each needs an hour of updates at most."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from collectors.derived.books import BooksRunningError, derive_books
from collectors.errors import CryptopipError
from collectors.simulator import Truth as SimulatorTruth
from collectors.sync import target
from collectors.sync.channels import BOOK_EVENTS, ChannelSpec, copy_columns, create_stage, stage_name
from collectors.sync.identities import BY_EPOCH
from tests.conftest import fresh_database
from tests.integration.harness.compare import assert_books
from tests.integration.harness.fleet import Fleet
from tests.integration.harness.hours import keep_first_snapshots, put_into_hours
from tests.integration.harness.scenario import SYMBOLS, MakeFleet, trade_for

pytestmark = pytest.mark.database
T0 = datetime(2024, 3, 1, 21, 40, 1, tzinfo=UTC)
"""So that the hours of a history lie on both sides of midnight, and an event just behind a full hour."""
EVENTS = 40
STEP = timedelta(minutes=5)
Connection = psycopg.Connection[Any]
Side = dict[Decimal, Decimal]


class Event(NamedTuple):
    """Of a chain: first and last id, first None of a snapshot. Of a connection: its number twice."""

    first: int | None
    last: int
    epoch: int = 1
    ordinal: int = 1


def moment(n: int) -> datetime:
    return T0 + n * STEP


class Truth:
    """A book of which each update id changes one level, and the books after each."""

    def __init__(self) -> None:
        rng = random.Random(7)
        sides: tuple[Side, Side] = (
            {Decimal(100 - n): Decimal(1) for n in range(6)},
            {Decimal(101 + n): Decimal(1) for n in range(6)},
        )
        self.changes: dict[int, tuple[int, Decimal, Decimal]] = {}
        self.books: list[tuple[Side, Side]] = [(dict(sides[0]), dict(sides[1]))]
        for number in range(1, EVENTS + 1):
            side = rng.randrange(2)
            price = Decimal(100 - rng.randrange(9)) if side == 0 else Decimal(101 + rng.randrange(9))
            amount = Decimal(rng.randrange(3))
            self.changes[number] = (side, price, amount)
            sides[side][price] = amount
            if not amount:
                del sides[side][price]
            self.books.append((dict(sides[0]), dict(sides[1])))

    def levels(self, event: Event) -> tuple[Side, Side]:
        if event.first is None:
            return self.books[event.last]
        sides: tuple[Side, Side] = ({}, {})
        for number in range(event.first, event.last + 1):
            side, price, amount = self.changes[number]
            sides[side][price] = amount
        return sides


TRUTH = Truth()


def arrive(
    lake: Connection,
    events: Sequence[Event],
    spec: ChannelSpec = BOOK_EVENTS,
    ingestor: str = "ing1",
    lag: timedelta = timedelta(0),
) -> None:
    """Merged as sync merges them, by its own code."""
    rows = []
    for event in events:
        sides = [list(part) for side in TRUTH.levels(event) for part in (side.keys(), side.values())]
        ids = (event.first, event.last, None) if spec is BOOK_EVENTS else (None, None, None)
        row = [moment(event.last) + lag, moment(event.last), event.epoch, *ids, 1, event.first is None, *sides]
        rows.append(row if spec is BOOK_EVENTS else [*row, event.ordinal])
    with lake.transaction():
        lake.execute(create_stage(spec))
        lake.cursor().executemany(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                stage_name(spec),
                copy_columns(spec),
                sql.SQL(", ").join(sql.SQL("%s::" + kind) for _, kind in spec.columns),
            ),
            rows,
        )
        target.merge(lake, spec, ingestor)


def take_back(lake: Connection, last_ids: list[int], spec: ChannelSpec) -> None:
    """What a superseded batch alone had contributed is taken out of history and digests, in one statement."""
    lake.execute(
        f"WITH gone AS (DELETE FROM book_events AS t WHERE last_id = ANY (%s) AND NOT is_snapshot"
        f" RETURNING t.instrument_id, time_bucket('1 hour', t.time) AS hour, event_hash({spec.text}) AS hash),"
        " summed AS (SELECT instrument_id, hour, count(*) AS rows, sum(hash) AS hash FROM gone GROUP BY 1, 2)"
        " UPDATE digests AS d SET rows = d.rows - s.rows, hash = d.hash - s.hash FROM summed AS s"
        " WHERE d.instrument_id = s.instrument_id AND d.channel = 'book_events' AND d.hour = s.hour",
        [last_ids],
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


def clear(lake: Connection, exchange: str = "binance", identity: str = "chain") -> None:
    lake.execute(
        "SET ROLE postgres; TRUNCATE book_events, quotes, digests, book_hours, book_snapshots, instruments, identities,"
        " sources, connections, coverage CASCADE; SET ROLE cryptopip_sync_writer"
    )
    lake.execute(
        "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
        " VALUES (1, %s, 'BTC/USD', 'BTCUSD', 'spot', 'BTC', 'USD', '2020-01-01')",
        [exchange],
    )
    lake.execute("INSERT INTO identities VALUES (%s, 'book_events', %s, NULL)", [exchange, identity])
    lake.execute("INSERT INTO identities VALUES (%s, 'quotes', 'id', NULL)", [exchange])


@contextmanager
def without_snapshots(lake: Connection) -> Iterator[None]:
    """In here the lake has rows alone."""
    with lake.transaction(force_rollback=True):
        lake.execute("DELETE FROM book_snapshots")
        yield


def made(lake: Connection) -> list[tuple[Any, ...]]:
    return lake.execute("SELECT * FROM book_snapshots ORDER BY instrument_id, time").fetchall()


def from_scratch(lake: Connection) -> list[tuple[Any, ...]]:
    """What a run over all hours makes that knows of nothing."""
    with lake.transaction(force_rollback=True):
        lake.execute("DELETE FROM book_snapshots")
        lake.execute("INSERT INTO book_hours SELECT instrument_id, hour FROM digests WHERE channel = 'book_events'")
        report = derive_books(lake)
        assert (report.left, report.refused) == (0, 0)
        return made(lake)


def told_of_chain(lake: Connection) -> list[tuple[Any, ...]]:
    return lake.execute(
        "SELECT n, b.* FROM generate_series(0, %s) AS n, book_at_update(1, n, 100) AS b ORDER BY n, side, level",
        [EVENTS],
    ).fetchall()


chains = st.lists(
    st.one_of(
        st.integers(0, EVENTS).map(lambda last: Event(None, last)),
        st.tuples(st.integers(1, EVENTS), st.integers(0, 6)).map(lambda p: Event(p[0], min(EVENTS, p[0] + p[1]))),
    ),
    max_size=12,
)


@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chains, st.lists(st.integers(2, EVENTS), max_size=12, unique=True), st.data())
def test_in_any_order_of_arrival_no_answer_changes_and_the_end_is_that_of_a_run_from_scratch(
    lake: Connection, more: list[Event], cuts: list[int], data: st.DataObject
) -> None:
    clear(lake)
    ends = sorted({*cuts, EVENTS})  # one ingestor was there all along, others told of the same with other boundaries
    whole = [Event(first, last) for first, last in zip([1, *(end + 1 for end in ends)], ends, strict=False)]
    order = data.draw(st.permutations([Event(None, 0), *whole, *more]))
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        arrive(lake, batch)
        with without_snapshots(lake):
            bare = told_of_chain(lake)
        assert told_of_chain(lake) == bare, "before the books are made anew"
        if data.draw(st.booleans()):
            derive_books(lake)
            assert told_of_chain(lake) == bare
    superseded = data.draw(st.lists(st.integers(1, EVENTS), max_size=4))
    take_back(lake, superseded, BOOK_EVENTS)
    with without_snapshots(lake):
        bare = told_of_chain(lake)
    assert told_of_chain(lake) == bare
    derive_books(lake)
    assert told_of_chain(lake) == bare
    assert made(lake) == from_scratch(lake)


LAG = {"ing1": timedelta(seconds=20), "ing2": timedelta(seconds=-35)}
"""A clock that is behind the exchange's receives events of the next hour in this one."""
AFTER = timedelta(minutes=1)
"""A connection is known to have been alive so long after its last event."""


class Life:
    """A connection: a snapshot behind the first update, all updates up to the last; told in pieces, as sync is."""

    def __init__(self, epoch: int, ingestor: str, first: int, last: int) -> None:
        self.epoch, self.ingestor, self.first, self.last = epoch, ingestor, first, last
        self.events = [Event(None, first, epoch), *(Event(n, n, epoch) for n in range(first + 1, last + 1))]
        self.told = 0

    @property
    def started_at(self) -> datetime:
        return moment(self.first) + LAG[self.ingestor]

    def listens(self, at: datetime) -> bool:
        return self.started_at <= at <= moment(self.last) + LAG[self.ingestor] + AFTER

    def tell(self, lake: Connection, size: int) -> None:
        piece = self.events[self.told : self.told + size]
        self.told += len(piece)
        alive = moment(piece[-1].last) + LAG[self.ingestor] + AFTER
        ended = (alive, "disconnect") if self.told == len(self.events) else (None, None)
        with lake.transaction():
            arrive(lake, piece, BY_EPOCH["book_events"], self.ingestor, LAG[self.ingestor])
            life = UUID(int=1)
            lake.execute(
                "INSERT INTO sources (incarnation, ingestor) VALUES (%s, 'all') ON CONFLICT DO NOTHING", [life]
            )
            lake.execute(
                "INSERT INTO connections VALUES (%s, 's', %s, 'coinbaseexchange', %s, %s, %s, %s, %s, 1)"
                " ON CONFLICT (incarnation, stream, epoch) DO UPDATE SET alive_until = excluded.alive_until,"
                " closed_at = excluded.closed_at, ended_by = excluded.ended_by",
                [life, self.ingestor, self.epoch, self.started_at, alive, *ended],
            )
            lake.execute(
                "INSERT INTO coverage VALUES (%s, %s, 's', %s, %s, 1, 'book_events', %s, %s, NULL, NULL, NULL, NULL,"
                " 'heartbeat', %s, 1) ON CONFLICT (incarnation, id) DO UPDATE SET ended_at = excluded.ended_at,"
                " ended_by = excluded.ended_by",
                [life, self.epoch, self.ingestor, self.epoch, self.started_at, *ended],
            )


def told_of_lead(lake: Connection) -> list[tuple[Any, ...]]:
    """The books two and a half minutes after each update and half a second before it."""
    return lake.execute(
        "SELECT n, b.*, after FROM generate_series(0, %s) AS n, (VALUES (150), (-0.5)) AS s (after),"
        " book_at(1, %s + n * interval '5 min' + after * interval '1 s', 100) AS b ORDER BY n, after, side, level",
        [EVENTS, T0],
    ).fetchall()


lifetimes = st.lists(
    st.tuples(st.sampled_from(["ing1", "ing2"]), st.integers(0, EVENTS - 2), st.integers(1, EVENTS)),
    min_size=1,
    max_size=4,
).map(lambda lives: [Life(n, name, first, min(first + size, EVENTS)) for n, (name, first, size) in enumerate(lives, 1)])


@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lifetimes, st.data())
def test_so_it_is_where_a_book_belongs_to_its_connection(
    lake: Connection, lives: list[Life], data: st.DataObject
) -> None:
    clear(lake, "coinbaseexchange", "epoch")
    while open_ones := [life for life in lives if life.told < len(life.events)]:
        data.draw(st.sampled_from(open_ones)).tell(lake, data.draw(st.integers(1, EVENTS)))
        with without_snapshots(lake):
            bare = told_of_lead(lake)
        assert told_of_lead(lake) == bare, "before the books are made anew"
        if data.draw(st.booleans()):
            derive_books(lake)
            assert told_of_lead(lake) == bare
    derive_books(lake)
    rows = told_of_lead(lake)
    for n in range(EVENTS + 1):
        of = [row for row in rows if row[0] == n and row[-1] == 150]
        at = moment(n) + timedelta(seconds=150)
        if any(life.listens(at) for life in lives):
            told = tuple({row[4]: row[5] for row in of if row[2] == side} for side in ("bid", "ask"))
            assert told == TRUTH.books[n], n
        else:
            assert str(of[0][1]).startswith("nobody was listening")
    assert made(lake) == from_scratch(lake)


def test_coverage_that_is_told_later_or_otherwise_than_events_makes_their_hours_anew(lake: Connection) -> None:
    """In a long pull a connection comes with its last batch; a reload may say that a book was not synchronised."""
    clear(lake, "coinbaseexchange", "epoch")
    life = Life(1, "ing1", 0, EVENTS)
    with lake.transaction():
        life.tell(lake, len(life.events) - 1)
        lake.execute("SET ROLE postgres; DELETE FROM connections; SET ROLE cryptopip_sync_writer")
    derive_books(lake)
    assert made(lake) == []
    lake.execute(
        "INSERT INTO connections VALUES (%s, 's', 'ing1', 'coinbaseexchange', 1, %s, %s, NULL, NULL, 1)",
        [UUID(int=1), life.started_at, moment(10)],
    )
    derive_books(lake)
    assert len(made(lake)) == 1
    lake.execute("UPDATE connections SET alive_until = %s", [moment(EVENTS)])
    derive_books(lake)
    assert len(made(lake)) == 4
    lake.execute("UPDATE coverage SET ended_at = %s, ended_by = 'sequence'", [moment(20)])
    derive_books(lake)
    assert len(made(lake)) == 2
    lake.execute("DELETE FROM coverage")
    derive_books(lake)
    assert made(lake) == []


def test_an_hour_is_made_when_it_is_over_and_what_follows_only_where_it_changed(lake: Connection) -> None:
    arrive(lake, [Event(None, 0), *(Event(n, n) for n in range(1, EVENTS + 1) if n != 20)])
    report = derive_books(lake)
    hours = {moment(n).replace(minute=0, second=0) for n in range(EVENTS + 1)}
    assert (report.hours, report.left) == (len(hours) + 2, 0), "the newest day first, and again behind the day before"
    ends = [hour + timedelta(hours=1) for hour in sorted(hours)]
    assert [row[0] for row in made(lake)] == ends[:2], "up to the hole"
    assert derive_books(lake).hours == 0
    arrive(lake, [Event(3, 5)])  # tells nothing new of 3 to 5
    assert derive_books(lake).hours == 1
    arrive(lake, [Event(20, 20)])
    assert derive_books(lake).hours == 3, "its own hour and the two that rest on it"
    assert len(made(lake)) == len(hours)
    lake.execute("UPDATE digests SET hour = date_trunc('hour', now(), 'UTC') WHERE hour = %s", [max(hours)])
    assert derive_books(lake).left == 0, "an hour that is not over does not count"
    assert lake.execute("SELECT count(*) FROM book_hours").fetchone() == (1,)


def test_an_hour_without_some_of_its_rows_is_refused_and_told_until_they_are_back(lake: Connection) -> None:
    arrive(lake, [Event(None, 0), *(Event(n, n) for n in range(1, 9))])
    derive_books(lake)
    before = made(lake)
    lake.execute("DELETE FROM book_events WHERE last_id = 2")
    arrive(lake, [Event(1, 3)])
    assert derive_books(lake).refused == 1
    assert made(lake) == before
    with without_snapshots(lake):
        bare = told_of_chain(lake)
    assert told_of_chain(lake) == bare, "what rests on a refused hour is not used"
    lake.execute("UPDATE digests SET rows = rows - 1 WHERE hour = %s", [T0.replace(minute=0, second=0)])
    assert derive_books(lake, retry=True).refused == 0


def test_time_that_is_up_leaves_hours_to_the_next_run(lake: Connection) -> None:
    arrive(lake, [Event(None, 0), *(Event(n, n) for n in range(1, EVENTS + 1))])
    assert derive_books(lake, seconds=0).hours == 0
    assert derive_books(lake, seconds=0).left == 5
    assert derive_books(lake).left == 0


def test_events_that_are_merged_while_an_hour_is_made_are_not_passed_over(lake: Connection, lake_dsn: str) -> None:
    """Sync has noticed the hour and not committed: its rows cannot be seen, and its note must not be lost."""
    arrive(lake, [Event(None, 0), Event(1, 1)])
    with psycopg.connect(lake_dsn, autocommit=True) as sync:
        with sync.transaction():
            arrive(sync, [Event(2, 2)])
            assert derive_books(lake).hours == 0, "the hour is locked, so it is left to the next run"
        assert derive_books(lake).hours == 1
    assert made(lake)[0][5] == 2


def test_one_run_at_a_time(lake: Connection, lake_dsn: str) -> None:
    arrive(lake, [Event(None, 0), Event(1, 1)])
    with psycopg.connect(lake_dsn, autocommit=True) as other:
        caught: list[Exception] = []

        def run(_: Any) -> None:
            try:
                derive_books(other)
            except BooksRunningError as error:
                caught.append(error)

        derive_books(lake, on_progress=run)
    assert len(caught) == 1


def test_a_database_without_the_tables_is_named(server_dsn: str) -> None:
    with (
        psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as other,
        pytest.raises(CryptopipError, match="has no digests, book_events"),
    ):
        derive_books(other)


def test_any_moments_book_is_the_exchanges_from_no_more_than_an_hour_of_updates(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(levels=1500)
    fleet.record()
    since = time.time_ns()
    trade_for(9)
    fleet.finish_recording()
    fleet.load_and_sync()
    put_into_hours(fleet.datalake_dsn, "binance", since)
    keep_first_snapshots(fleet.datalake_dsn)
    with psycopg.connect(fleet.datalake_dsn, autocommit=True) as lake:  # as if the exchange sent no quotes
        lake.execute("TRUNCATE quotes; DELETE FROM identities WHERE channel = 'quotes'")
    fleet.run("derive", "--dsn", fleet.datalake_dsn)
    assert_books(fleet, since_ns=since, samples=20, seed=1)
    assert_derived_quotes(fleet)
    asked = "SELECT * FROM book_at_update(%s, %s, 100000)"
    with psycopg.connect(fleet.datalake_dsn, autocommit=True) as lake:
        for instrument in range(1, len(SYMBOLS) + 1):
            hours = lake.execute(
                "SELECT time_bucket('1 hour', time) AS hour, max(last_id) FROM book_events WHERE instrument_id = %s"
                " GROUP BY 1 HAVING min(time) > (SELECT max(time) FROM book_events WHERE is_snapshot) ORDER BY 1",
                [instrument],
            ).fetchall()
            assert len(hours) >= 2
            for hour, last_id in hours:
                whole = lake.execute(asked, [instrument, last_id]).fetchall()
                assert whole[0][0] is None
                with lake.transaction(force_rollback=True):
                    gone = lake.execute("DELETE FROM book_events WHERE time < %s", [hour]).rowcount
                    assert gone > 0
                    assert lake.execute(asked, [instrument, last_id]).fetchall() == whole
                    lake.execute("DELETE FROM book_snapshots")
                    row = lake.execute(asked, [instrument, last_id]).fetchone()
                    assert row is not None
                    assert row[0] == f"no snapshot at or before update {last_id}"


def assert_derived_quotes(fleet: Fleet) -> None:
    """From the first snapshot on they are the best of the exchange's own book after each update, where that differs."""
    truth = SimulatorTruth.read(fleet.exchange.truth_folder)
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as lake:
        for symbol, instrument in fleet.instruments.items():
            ids = [
                row[0]
                for row in lake.execute(
                    "SELECT DISTINCT last_id FROM book_events AS b WHERE instrument_id = %s AND last_id >="
                    " (SELECT min(last_id) FROM book_events AS s WHERE is_snapshot AND s.instrument_id = %s)"
                    " ORDER BY last_id",
                    [instrument, instrument],
                )
            ]
            expected = []
            before = None
            for update_id, book in zip(ids, truth.books_at(symbol, ids), strict=True):
                (bid,), (ask,) = book.best(1)
                if (bid, ask) != before:
                    expected.append((update_id, *bid, *ask))
                before = (bid, ask)
            found = lake.execute(
                "SELECT update_id, bid_price::text, bid_amount::text, ask_price::text, ask_amount::text FROM quotes"
                " WHERE instrument_id = %s AND is_derived ORDER BY update_id",
                [instrument],
            ).fetchall()
            assert len(found) > 10
            assert found == expected
