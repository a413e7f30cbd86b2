"""The promises of the whole chain: what an ingestor could commit is in the datalake, exactly; the rest is a listed gap.

Real processes throughout: an exchange, recorders, loaders, sync, and a real database. Each scenario first proves that
the harm happened, then that it did none.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import psycopg
import pytest

from collectors.digests import Source, Summary, Window, compare
from collectors.simulator import Truth
from tests.conftest import fresh_database
from tests.integration.harness.compare import assert_books, assert_equal, assert_missing_lies_in_gaps, assert_no_gap
from tests.integration.harness.container import DatabaseServer
from tests.integration.harness.fleet import CHANNELS, COMMIT_INTERVAL_S, Fleet, query
from tests.integration.harness.process import Process, until
from tests.integration.harness.scenario import SYMBOLS, MakeFleet, last_moment, missing_on, trade_for

pytestmark = pytest.mark.database
STREAMS = 3 * len(SYMBOLS)
RESYNCHRONISATION_S = 8.0
"""Reconnecting with back-off, subscribing, a snapshot: at most this on a small, busy machine; 0.8 as measured."""
RECEIPT_S = 1.0
"""From the exchange's sending to a time of receipt in the journal: at most this on such a machine."""
SAMPLES = 100
"""Update ids, of all symbols together, at which a book is compared."""
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'
"""
STARTED = "SELECT pg_postmaster_start_time()"


def test_the_datalake_equals_the_exchange_when_all_is_well(make_fleet: MakeFleet) -> None:
    # More levels than a snapshot holds, so that the horizon is a real one.
    fleet = make_fleet(levels=5200)
    fleet.record()
    since = time.time_ns()
    trade_for(15)
    ended = last_moment()
    fleet.finish_recording()
    fleet.load_and_sync()
    rows = assert_equal(fleet, since)
    assert all(rows[channel] > 200 for channel in CHANNELS), rows
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=1)
    assert_no_gap(fleet, since + 3_000_000_000, ended)  # a book is covered from its first bridged snapshot on
    before = fleet.count(fleet.datalake_dsn, "trades")
    fleet.load_and_sync()
    assert fleet.count(fleet.datalake_dsn, "trades") == before
    assert_equal(fleet, since)
    compared = Summary()
    kept, computed = (Source(text).digests(Window()) for text in (fleet.datalake_dsn, f"rows:{fleet.datalake_dsn}"))
    assert list(compare(kept, computed, compared)) == []
    assert compared.rows_a == sum(fleet.count(fleet.datalake_dsn, channel) for channel in CHANNELS)


def test_a_killed_recorder_costs_nothing_while_the_other_listens(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    trade_for(4)
    first = fleet.ingestors[0]
    assert first.recorder is not None
    first.recorder.kill()
    until(lambda: not fleet.exchange.streams(first.name), "the exchange noticing that a recorder is dead")
    trade_for(3)
    fleet.keep(first.record())
    first.wait_subscribed(SYMBOLS)
    trade_for(4)
    fleet.finish_recording()
    fleet.load_and_sync()
    assert "crash" in first.endings()
    assert all(missing_on(fleet, first, since).values()), "the recorder missed nothing: this run proved nothing"
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=2)


@pytest.mark.parametrize("seed", [1])
def test_a_loader_killed_at_20_random_points_neither_loses_nor_doubles(make_fleet: MakeFleet, seed: int) -> None:
    chance = random.Random(seed)
    fleet = make_fleet(ingestors=1)  # alone, so that no other ingestor makes good what it would lose
    only = fleet.ingestors[0]
    fleet.record()
    since = time.time_ns()
    progressed = 0
    for _ in range(20):
        before = fleet.count(only.dsn, "load_batches")
        kill_at_work(only.dsn, lambda: fleet.keep(only.load_on()), chance)
        progressed += fleet.count(only.dsn, "load_batches") > before
    assert progressed >= 8, f"only {progressed} of 20 lives loaded anything: this run proved little"
    fleet.finish_recording()
    fleet.load_and_sync()
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=seed)
    assert only.endings() == {"shutdown"}, "a loader's death is no gap"


@pytest.mark.parametrize("seed", [1])
def test_a_sync_killed_at_20_random_points_neither_loses_nor_doubles(make_fleet: MakeFleet, seed: int) -> None:
    chance = random.Random(seed)
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    loaders = [fleet.keep(ingestor.load_on()) for ingestor in fleet.ingestors]
    progressed = 0
    for _ in range(20):
        before = _watermark(fleet)
        kill_at_work(fleet.datalake_dsn, lambda: fleet.keep(fleet.sync_on()), chance)
        progressed += _watermark(fleet) > before
    assert progressed >= 8, f"only {progressed} of 20 lives merged anything: this run proved little"
    fleet.finish_recording()
    for loader in loaders:
        loader.stop()
    fleet.load_and_sync()
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=seed)


def kill_at_work(dsn: str, start: Callable[[], Process], chance: random.Random) -> None:
    """Start a process and SIGKILL it at a random moment of its first second with the database."""
    began = query(dsn, "SELECT clock_timestamp()::text")[0][0]
    process = start()
    connected = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        f" AND pid <> pg_backend_pid() AND backend_start > '{began}'"
    )
    until(lambda: query(dsn, connected), f"{process.name} connecting", pause=0.02)
    assert process.kill_within(chance.uniform(0.0, 1.0)), f"{process.name} was to go on and ended: {process.tail()}"


def _watermark(fleet: Fleet) -> int:
    return int(query(fleet.datalake_dsn, "SELECT coalesce(sum(batch), 0) FROM watermarks")[0][0])


def test_databases_that_lose_every_connection_lose_no_row(make_fleet: MakeFleet, server_dsn: str) -> None:
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    running = Supervised(fleet)
    trade_for(3)
    ended = 0
    for _ in range(4):
        for dsn in (*(ingestor.dsn for ingestor in fleet.ingestors), fleet.datalake_dsn):
            name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
            with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
                ended += len(admin.execute(TERMINATE, (name,)).fetchall())
        running.go_on(3)
    assert ended >= 8, f"{ended} connections ended: hardly anybody was connected"
    fleet.finish_recording()
    running.stop()
    fleet.load_and_sync()
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=3)


@pytest.mark.skipif("CRYPTOPIP_TEST_IMAGE" not in os.environ, reason="CRYPTOPIP_TEST_IMAGE names no database image")
def test_databases_restarted_and_killed_lose_no_row(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = []
        for role in ("ingestors", "datalake"):
            (tmp_path / role).mkdir()
            servers.append(DatabaseServer(os.environ["CRYPTOPIP_TEST_IMAGE"], tmp_path / role))
            stack.callback(servers[-1].remove)
        database = contextmanager(fresh_database)
        ingestors = [stack.enter_context(database(servers[0].dsn, "ingestor")) for _ in range(2)]
        lake = stack.enter_context(database(servers[1].dsn, "datalake"))
        fleet = Fleet(tmp_path, ingestors, lake, symbols=SYMBOLS)
        stack.callback(fleet.close)
        fleet.record()
        since = time.time_ns()
        running = Supervised(fleet)
        running.go_on(4)
        for harm, server in product((DatabaseServer.restart, DatabaseServer.crash), servers):
            began = [query(one.dsn, STARTED) for one in servers]
            harm(server)
            is_harmed = [query(one.dsn, STARTED) > then for one, then in zip(servers, began, strict=True)]
            assert is_harmed == [one is server for one in servers]
            loaded = sum(fleet.count(dsn, "load_batches") for dsn in ingestors)
            deadline = time.monotonic() + 60
            while _watermark(fleet) <= loaded:
                assert time.monotonic() < deadline, f"no rows flow after {harm.__name__} of {server.dsn}"
                running.go_on(0.3)
        fleet.finish_recording()
        running.stop()
        fleet.load_and_sync()
        assert_equal(fleet, since)
        assert_books(fleet, since_ns=since, samples=SAMPLES, seed=6)


class Supervised:
    """Loaders and a sync that go on; one that ends is started again, as systemd does."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._starts: list[Callable[[], Process]] = [ingestor.load_on for ingestor in fleet.ingestors]
        self._starts.append(fleet.sync_on)
        self._running = [fleet.keep(start()) for start in self._starts]

    def go_on(self, seconds: float) -> None:
        """Watch for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for place, process in enumerate(self._running):
                if not process.is_alive():
                    self._running[place] = self._fleet.keep(self._starts[place]())
            time.sleep(0.1)

    def stop(self) -> None:
        """An orderly end of those alive."""
        for process in self._running:
            if process.is_alive():
                process.stop()


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.long)])
def test_an_ingestor_that_is_cut_off_is_made_good_by_the_other(make_fleet: MakeFleet, seconds: int) -> None:
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    first = fleet.ingestors[0]
    trade_for(3)
    fleet.exchange.fault("refuse", first.name, seconds=seconds)
    until(lambda: not fleet.exchange.streams(first.name), "the cut")
    until(lambda: len(fleet.exchange.streams(first.name)) == STREAMS, "the way back", 60 + seconds)
    trade_for(3)
    assert fleet.exchange.faults(first.name)["disconnect"] >= 1
    fleet.finish_recording()
    fleet.load_and_sync()
    assert "disconnect" in first.endings()
    assert all(missing_on(fleet, first, since).values()), "the ingestor missed nothing: this run proved nothing"
    assert not any(missing_on(fleet, fleet.ingestors[1], since).values())
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=4)


def test_frames_dropped_doubled_swapped_and_cut_on_one_ingestor_leave_no_trace(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    first = fleet.ingestors[0]
    for kind in ("drop", "duplicate", "reorder", "malformed"):
        fleet.exchange.fault(kind, first.name, probability=0.02)
    trade_for(15)
    faults = fleet.exchange.faults(first.name)
    fleet.exchange.clear_faults()
    trade_for(1)
    fleet.finish_recording()
    fleet.load_and_sync()
    assert all(faults.get(kind, 0) > 5 for kind in ("drop", "duplicate", "reorder", "malformed")), faults
    assert all(missing_on(fleet, first, since).values()), "the ingestor missed nothing: this run proved nothing"
    assert "sequence" in first.endings()
    parked = fleet.count(first.dsn, "parked_frames")
    assert parked == faults["malformed"], "what cannot be decoded is kept by reference"
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=5)


def test_sockets_ended_and_frames_held_back_while_snapshots_are_refused_leave_no_trace(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    first = fleet.ingestors[0]
    # Snapshots are refused from the start, by the limit and by a broken server, so that a book begins in spite of both.
    fleet.exchange.fault("status", first.name, path="/depth", status=503, count=2)
    fleet.exchange.fault("status", first.name, path="/depth", status=429, count=1)
    fleet.record()
    since = time.time_ns()
    fleet.exchange.fault("delay", first.name, probability=0.02, delay_ms=300)
    trade_for(6)
    fleet.exchange.fault("lifetime", first.name, seconds=4)
    until(
        lambda: fleet.exchange.faults(first.name).get("lifetime", 0) >= 3, "connections reaching the end of their life"
    )
    log = fleet.folder / f"{first.name}.log"
    ended = len(log.read_text())
    fleet.exchange.clear_faults()
    until(lambda: len(fleet.exchange.streams(first.name)) == STREAMS, "the way back")
    # After a 429 requests go out one by one, at the pace that the exchange's limit allows.
    until(
        lambda: all(f"event=snapshot symbol={symbol}" in log.read_text()[ended:] for symbol in SYMBOLS),
        "a snapshot of each book after its connection ended",
    )
    trade_for(2)
    faults = fleet.exchange.faults(first.name)
    fleet.finish_recording()
    fleet.load_and_sync()
    assert faults["status"] == 3, faults
    assert faults["delay"] > 5, faults
    assert all(missing_on(fleet, first, since).values()), "the ingestor missed nothing: this run proved nothing"
    assert {"disconnect", "sequence"} <= first.endings()
    books = "SELECT count(DISTINCT instrument_id) FROM coverage WHERE channel = 'book_events' AND ended_by = 'shutdown'"
    assert query(first.dsn, books) == [(len(SYMBOLS),)], "a book never got its snapshot after the refusals"
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=7)


def test_an_exchange_that_falls_silent_on_one_ingestor_is_noticed_and_made_good(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    first = fleet.ingestors[0]
    trade_for(3)
    began = fleet.exchange.acknowledged(first.name)
    fleet.exchange.fault("stall", first.name, seconds=30)
    until(
        lambda: all(at > began[stream] for stream, at in fleet.exchange.acknowledged(first.name).items()),
        "new connections in place of the silent ones",
        120,
    )
    trade_for(3)
    fleet.finish_recording()
    fleet.load_and_sync()
    assert fleet.exchange.faults(first.name)["stall"] > 0
    assert all(missing_on(fleet, first, since).values()), "the ingestor missed nothing: this run proved nothing"
    assert "stall" in first.endings(), first.endings()
    assert_equal(fleet, since)
    assert_books(fleet, since_ns=since, samples=SAMPLES, seed=8)


@pytest.mark.parametrize("harm", ["refused", "killed"])
def test_what_nobody_heard_lies_in_a_gap_no_longer_than_the_outage(make_fleet: MakeFleet, harm: str) -> None:
    fleet = make_fleet()
    fleet.record()
    since = time.time_ns()
    trade_for(4)
    began = time.time_ns()
    if harm == "refused":
        fleet.exchange.fault("refuse", "*", seconds=4)
        until(lambda: not any(fleet.exchange.streams(one.name) for one in fleet.ingestors), "the outage")
    else:
        for ingestor in fleet.ingestors:
            assert ingestor.recorder is not None
            ingestor.recorder.kill()
        for ingestor in fleet.ingestors:
            fleet.keep(ingestor.record())
    for ingestor in fleet.ingestors:
        ingestor.wait_subscribed(SYMBOLS)
    back = {one.name: fleet.exchange.acknowledged(one.name) for one in fleet.ingestors}
    outage_s = 4.0 if harm == "refused" else (min(min(of.values()) for of in back.values()) - began) / 1e9
    trade_for(6)
    ended = last_moment()
    fleet.finish_recording()
    fleet.load_and_sync()
    reports = assert_missing_lies_in_gaps(fleet, since + 2_000_000_000, ended)
    snapshots = {symbol: of.snapshots for symbol, of in Truth.read(fleet.exchange.truth_folder).symbols.items()}
    kinds = {"trades": "trade", "quotes": "bookTicker", "book_events": "depth@100ms"}
    for report in reports:
        where = f"{report.symbol} {report.channel}"
        assert report.missing > 0, f"{where}: nothing is missing, so nothing was proven"
        ((start, end),) = report.gaps
        # Commits happen each interval; the last one before the end may also have been waiting for the disk.
        assert start >= began // 1000 - (COMMIT_INTERVAL_S + 1.0) * 1e6, f"{where}: starts long before the outage"
        stream = f"{report.symbol.lower()}@{kinds[report.channel]}"
        sent = [of[stream] for of in back.values()]
        if report.channel == "book_events":
            served = snapshots[report.symbol]
            sent = [one.sent_ns for one in served if one.sent_ns >= back[one.listener][stream]]
        resumed = min(sent)  # when the first ingestor had the reply that it may count on: the subscription, the book
        assert (resumed - began) / 1e9 <= outage_s + RESYNCHRONISATION_S, f"{where}: resumed late"
        assert end <= resumed // 1000 + RECEIPT_S * 1e6, f"{where}: ends {end / 1e6 - resumed / 1e9} s after the reply"
