"""An ingestor that misses what another received loses its claim to have listened there, in whatever order both come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from psycopg.types.multirange import Multirange

from collectors.config import Source, Sync, load_config
from collectors.coverage.continuity import check_continuity
from collectors.coverage.model import Query
from collectors.sync import SyncReport, sync_once
from collectors.sync.claims import Pace
from tests.conftest import fresh_database
from tests.integration.harness.scenario import MakeFleet, trade_for

pytestmark = pytest.mark.database
T0 = datetime(2026, 11, 20, 10, 58, 7, tzinfo=UTC)  # an hour begins in between
EVENTS = 24
APART = timedelta(seconds=10)
LAG = {"ing1": timedelta(milliseconds=20), "ing2": timedelta(milliseconds=50)}
QUICK = Pace(step=timedelta(0), margin=timedelta(seconds=1))
Stretches = set[tuple[datetime | None, datetime | None]]


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, client_encoding="UTF8")


def moment(i: float) -> datetime:
    return T0 + i * APART


class Lab:
    """Two ingestors of OKX, whose trades have ids that prove nothing, and a datalake."""

    def __init__(self, ingestors: dict[str, str], datalake: str) -> None:
        self.ingestors = ingestors
        self.datalake = datalake
        self.config = Sync(
            make_conninfo(datalake, options="-c role=cryptopip_sync_writer"),
            [
                Source(name, make_conninfo(dsn, options="-c role=cryptopip_sync_reader"))
                for name, dsn in ingestors.items()
            ],
        )

    def clear(self) -> None:
        for name, dsn in self.ingestors.items():
            with connect(dsn) as db:
                db.execute(
                    "TRUNCATE instruments, streams, load_batches, connections, coverage, trades, pruned_chunks"
                    " RESTART IDENTITY CASCADE"
                )
                db.execute("UPDATE incarnation SET id = gen_random_uuid()")
                db.execute(
                    "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
                    " VALUES (1, 'okx', 'BTC/USDT', 'BTC-USDT', 'spot', 'BTC', 'USDT', '2020-01-01')"
                )
                db.execute("INSERT INTO streams (ingestor, name, exchange) VALUES (%s, 'okx', 'okx')", [name])
        with connect(self.datalake) as db:
            db.execute("TRUNCATE instruments, sources, digests, sync_conflicts, trades CASCADE")

    def open(self, ingestor: str) -> None:
        """A connection with its coverage, which lasts from before the first event."""
        with connect(self.ingestors[ingestor]) as db:
            db.execute(
                "INSERT INTO connections (stream_id, epoch, opened_at, alive_until, batch) VALUES (1, 1, %s, %s, 0)",
                [moment(-1), moment(-1)],
            )
            db.execute(
                "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, proof, batch)"
                " VALUES (1, 1, 1, 'trades', %s, 'heartbeat', 1)",
                [moment(-1)],
            )

    def load(self, ingestor: str, batch: int, events: list[int], until: float, *, closes: bool = False) -> None:
        """One load batch; the connection was alive ``until`` then, in places of events."""
        received = [moment(i) + LAG[ingestor] for i in events]
        with connect(self.ingestors[ingestor]) as db, db.transaction():
            db.cursor().executemany(
                "INSERT INTO trades VALUES (%s, %s, %s, 1, 1, 1, NULL, %s, 60000.10, 1)",
                [(at, moment(i), batch, f"t{i}") for at, i in zip(received, events, strict=True)],
            )
            db.execute(
                "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
                " received_from, received_to, frames, parked, rejected, trades, quotes, book_events)"
                " VALUES (1, %s, 's', 0, 0, 'v', %s, %s, 0, 0, 0, %s, 0, 0)",
                [batch, min(received, default=None), max(received, default=None), len(events)],
            )
            db.execute("UPDATE connections SET alive_until = %s, batch = %s", [moment(until), batch])
            if closes:
                db.execute("UPDATE connections SET closed_at = alive_until, ended_by = 'shutdown'")
                db.execute(
                    "UPDATE coverage SET ended_at = %s, ended_by = 'shutdown', batch = %s", [moment(until), batch]
                )

    def sync(self) -> SyncReport:
        report = sync_once(self.config, pace=QUICK)
        assert report.failed == []
        return report

    def revoked(self, ingestor: str) -> Stretches:
        with connect(self.datalake) as db:
            rows = db.execute("SELECT revoked FROM coverage WHERE ingestor = %s", [ingestor]).fetchall()
        return {
            (each.lower and each.lower.astimezone(UTC), each.upper and each.upper.astimezone(UTC))
            for (ranges,) in rows
            for each in ranges
        }


@pytest.fixture(scope="module")
def lab(server_dsn: str) -> Iterator[Lab]:
    fresh = partial(contextmanager(fresh_database), server_dsn)
    with fresh("ingestor") as first, fresh("ingestor") as second, fresh("datalake") as lake:
        yield Lab({"ing1": first, "ing2": second}, lake)


def expected(ingestor: str, held: dict[str, set[int]]) -> Stretches:
    """Around each event that only others have, from the ingestor's own event before to its own event behind."""
    own, others = held[ingestor], set().union(*(held[name] for name in held if name != ingestor))
    found: Stretches = set()
    for i in others - own:
        before = max((j for j in own if j < i), default=None)
        behind = min((j for j in own if j > i), default=None)
        ends = (None if j is None else moment(j) + LAG[ingestor] for j in (before, behind))
        found.add(tuple(ends))  # type: ignore[arg-type]
    return found


events = st.sets(st.integers(0, EVENTS - 1))
cuts = st.lists(st.integers(0, EVENTS), max_size=3).map(sorted)


@settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # an example takes too long to be made smaller
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.fixed_dictionaries({"ing1": events, "ing2": events}),
    st.fixed_dictionaries({"ing1": cuts, "ing2": cuts}),
    st.fixed_dictionaries({"ing1": events, "ing2": events}),
    st.randoms(use_true_random=False),
)
def test_what_others_alone_received_revokes_coverage_whatever_the_order(
    lab: Lab, held: dict[str, set[int]], cut: dict[str, list[int]], parked: dict[str, set[int]], random: Any
) -> None:
    lab.clear()
    batches: dict[str, Iterator[tuple[int, list[int], float, bool]]] = {}
    order = []
    for name, numbers in held.items():
        lab.open(name)
        ends = [*cut[name], EVENTS]
        starts = [0, *cut[name]]
        spans = [
            (n, sorted(i for i in numbers - parked[name] if since <= i < until), until - 0.5, until == EVENTS)
            for n, (since, until) in enumerate(zip(starts, ends, strict=True), 1)
        ]
        spans.append((len(spans) + 1, sorted(numbers & parked[name]), EVENTS - 0.5, True))  # parked until now
        batches[name] = iter(spans)
        order += [name] * len(spans)
    random.shuffle(order)
    for name in order:
        number, some, until, closes = next(batches[name])
        lab.load(name, number, some, until, closes=closes)
        if random.random() < 0.5:
            lab.sync()
    lab.sync()
    lab.sync()  # ing1 is asked before ing2 brings the last
    for name in held:
        assert lab.revoked(name) == expected(name, held), name
    with connect(lab.datalake) as db:
        before = db.execute("SELECT xmin::text, * FROM coverage ORDER BY incarnation").fetchall()
        assert db.execute("SELECT count(*) FROM doubts").fetchone() == (0,)
        assert lab.sync().pulled == 0
        assert db.execute("SELECT xmin::text, * FROM coverage ORDER BY incarnation").fetchall() == before


def both(lab: Lab, second: list[int], **options: bool) -> None:
    """ing1 with every event, and ing2 with these."""
    lab.clear()
    for name, numbers in (("ing1", list(range(EVENTS))), ("ing2", second)):
        lab.open(name)
        lab.load(name, 1, numbers, EVENTS - 0.5, **options)


def test_one_who_is_sent_nothing_any_more_covers_nothing_until_it_is(lab: Lab) -> None:
    both(lab, [0, 1])
    assert lab.sync().sources[1].missed == EVENTS - 2
    assert lab.revoked("ing2") == {(moment(1) + LAG["ing2"], None)}
    lab.load("ing2", 2, [EVENTS], EVENTS + 1, closes=True)
    lab.sync()
    assert lab.revoked("ing2") == {(moment(1) + LAG["ing2"], moment(EVENTS) + LAG["ing2"])}


def test_a_revoked_stretch_is_a_gap_where_nobody_else_listened(lab: Lab) -> None:
    both(lab, [i for i in range(EVENTS) if i not in {5, 6}], closes=True)
    lab.sync()
    with connect(lab.datalake) as db:
        db.execute("INSERT INTO recording VALUES (1, 'trades', tstzrange(%s, %s))", [moment(-1), moment(EVENTS - 0.5)])
        query = Query(since=moment(-1), until=moment(EVENTS - 0.5), channel="trades")
        assert check_continuity(db, query)[0].gaps == [], "the other one listened"
        db.execute("DELETE FROM coverage WHERE ingestor = 'ing1'")
        (gap,) = check_continuity(db, query)[0].gaps
        pieces = db.execute("SELECT lower(interval), upper(interval), ended_by FROM coverage_intervals ORDER BY 1")
        ends = moment(4) + LAG["ing2"], moment(7) + LAG["ing2"]
        assert (gap.start, gap.end, gap.kind, gap.ended_by) == (*ends, "ids_missing", {"ing2": "sequence"})
        assert pieces.fetchall() == [
            (moment(-1), ends[0], "sequence"),
            (ends[1], moment(EVENTS - 0.5), "shutdown"),
        ]
        db.execute("TRUNCATE recording")


def test_a_frame_that_was_parked_gives_the_claim_back_once_it_is_loaded(lab: Lab) -> None:
    both(lab, [i for i in range(EVENTS) if i not in {5, 9}], closes=True)
    lab.sync()
    around = {n: (moment(n - 1) + LAG["ing2"], moment(n + 1) + LAG["ing2"]) for n in (5, 9)}
    assert lab.revoked("ing2") == {around[5], around[9]}
    lab.load("ing2", 2, [5], EVENTS - 0.5, closes=True)
    assert lab.sync().inserted == 0
    assert lab.revoked("ing2") == {around[9]}


def test_near_the_ends_of_an_interval_nothing_is_judged(lab: Lab) -> None:
    both(lab, list(range(1, EVENTS - 1)), closes=True)
    report = sync_once(lab.config, pace=Pace(step=timedelta(0), margin=timedelta(seconds=11)))
    assert (report.sources[1].missed, lab.revoked("ing2")) == (0, set())


def test_who_is_still_connected_is_compared_a_step_at_a_time(lab: Lab) -> None:
    both(lab, [0])
    sync_once(lab.config, pace=Pace(step=timedelta(minutes=5), margin=timedelta(seconds=1)))
    assert lab.revoked("ing2") == set()
    lab.sync()
    assert lab.revoked("ing2") == {(moment(0) + LAG["ing2"], None)}


def test_where_rows_are_pruned_all_between_the_events_that_came_later_is_revoked(lab: Lab) -> None:
    lab.clear()
    early = [i for i in range(EVENTS) if i not in {5, 8}]
    for name in ("ing2", "ing1"):  # so that the history tells of no row that ing1 had it
        lab.open(name)
        lab.load(name, 1, early, EVENTS - 0.5, closes=True)
        lab.sync()
    assert lab.revoked("ing1") == set()
    with connect(lab.ingestors["ing1"]) as db:
        db.execute("DELETE FROM trades")
        db.execute("INSERT INTO pruned_chunks VALUES ('trades', '[2026-11-20, 2026-11-21)')")
    lab.load("ing2", 2, [5, 8], EVENTS - 0.5, closes=True)
    lab.sync()
    lab.sync()  # ing1 is asked before ing2 brings them
    assert lab.revoked("ing1") == {(moment(4) + LAG["ing2"], moment(9) + LAG["ing2"])}
    assert lab.revoked("ing2") == set()


def test_trades_that_one_connection_was_not_sent_are_found_out_by_the_other(make_fleet: MakeFleet) -> None:
    """Nothing on OKX's wire tells of a trade that is left out."""
    fleet = make_fleet(exchange="okx", rate=100, levels=600)
    first, second = fleet.ingestors
    fleet.record()
    trade_for(1)
    fleet.exchange.fault("drop", first.name, stream="trade", probability=0.1)
    trade_for(3)
    fleet.exchange.clear_faults()
    trade_for(1)
    fleet.finish_recording()
    for loader in [fleet.keep(ingestor.load()) for ingestor in fleet.ingestors]:
        loader.finish()
    sync = load_config(fleet.config).require_sync()
    pace = Pace(step=timedelta(0), margin=timedelta(seconds=0.2))
    for _ in range(2):
        assert sync_once(sync, pace=pace).failed == []
    assert fleet.exchange.faults(first.name)["drop"] > 0
    for instrument in fleet.instruments.values():
        own, others = (held(one.dsn, instrument) for one in (first, second))
        wanted: list[tuple[datetime, datetime]] = []
        for key in [key for key in others.keys() - own.keys() if min(own) < key < max(own)]:
            before = max(own[k] for k in own if k < key)
            behind = min(own[k] for k in own if k > key)
            wanted.append((before, behind))
        assert wanted, "it was sent everything: this run proved nothing"
        with connect(fleet.datalake_dsn) as db:
            coverage = "SELECT revoked FROM coverage WHERE instrument_id = %s AND channel = 'trades' AND ingestor = %s"
            # Trades of one frame were received at one moment, so that stretches may touch; then they are one.
            union = (
                "SELECT range_agg(CASE WHEN a < b THEN tstzrange(a, b, '()') ELSE tstzrange(b, a, '[]') END)"
                " FROM unnest(%s::timestamptz[], %s::timestamptz[]) AS t (a, b)"
            )
            assert (
                db.execute(coverage, [instrument, first.name]).fetchall()
                == db.execute(union, [[a for a, _ in wanted], [b for _, b in wanted]]).fetchall()
            )
            assert db.execute(coverage, [instrument, second.name]).fetchall() == [(Multirange(),)]


def held(dsn: str, instrument: int) -> dict[tuple[datetime, int], datetime]:
    """When an ingestor received each trade, by time and id."""
    with connect(dsn) as db:
        rows = db.execute("SELECT time, trade_id, received_at FROM trades WHERE instrument_id = %s", [instrument])
        return {(time, int(trade_id)): received for time, trade_id, received in rows}
