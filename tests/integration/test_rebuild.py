"""A datalake made anew from journals is the one that was merged from the ingestors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from collectors.errors import UsageError
from collectors.journal import Limits
from collectors.rebuild import Report, rebuild
from tests.conftest import fresh_database
from tests.integration.harness.fleet import CHANNELS, Fleet
from tests.integration.load_harness import ROOT, START_NS, Traffic, add_instrument, ask, count, write_journal

pytestmark = pytest.mark.database


@pytest.fixture
def new_lake(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def scratch(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "ingestor")


@pytest.fixture
def fleet(tmp_path: Path, server_dsn: str, datalake_dsn: str) -> Iterator[Fleet]:
    with ExitStack() as stack:
        dsns = [stack.enter_context(contextmanager(fresh_database)(server_dsn, "ingestor")) for _ in range(2)]
        made = Fleet(tmp_path, dsns, datalake_dsn, symbols=["BTCUSDT", "ETHUSDT"])
        stack.callback(made.close)
        yield made


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collectors", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)


def test_a_datalake_rebuilt_from_the_journals_of_a_fleet_is_equal_by_digest(
    fleet: Fleet, tmp_path: Path, new_lake: str, scratch: str
) -> None:
    """Two ingestors with different holes, several connections, segments copied off-site."""
    fleet.record()
    time.sleep(2)
    fleet.exchange.fault("drop", "ing1", probability=0.02)
    time.sleep(1)
    fleet.exchange.clear_faults()
    for ingestor in fleet.ingestors:  # one after the other, so that somebody listens throughout
        assert ingestor.recorder is not None
        ingestor.recorder.kill()
        fleet.keep(ingestor.record())
        ingestor.wait_subscribed(fleet.symbols)
        time.sleep(1)
    fleet.finish_recording()
    fleet.load_and_sync()
    copies = [tmp_path / "copies" / one.name for one in fleet.ingestors]
    for ingestor, copy in zip(fleet.ingestors, copies, strict=True):
        shutil.copytree(ingestor.journal, copy)
        assert len(list(copy.rglob("*.journal.zst"))) >= 2
    fleet.run("universe", "load", str(tmp_path / "universe.yml"), "--kind", "datalake", "--dsn", new_lake)
    done = run("rebuild", *map(str, copies), "--datalake", new_lake, "--scratch", scratch, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    total = sum(fleet.count(fleet.datalake_dsn, channel) for channel in CHANNELS)
    assert report["inserted"] == total > 1000
    assert report["rows"] > total
    for a, b in ((fleet.datalake_dsn, new_lake), (new_lake, f"rows:{new_lake}")):
        compared = run("digest", "compare", a, b)
        assert compared.returncode == 0, compared.stdout + compared.stderr
    listened = "SELECT instrument_id, channel, range_agg(interval) FROM coverage_intervals GROUP BY 1, 2 ORDER BY 1, 2"
    assert ask(new_lake, listened) == ask(fleet.datalake_dsn, listened)
    assert count(scratch, "trades") == 0, "the scratch database is emptied"


def prepared(folder: Path, lake: str) -> list[Traffic]:
    """Two connections of one ingestor, the first in several segments."""
    first, second = Traffic().add(900), Traffic(START_NS + 10**12, 5000).add(200)
    limits = Limits(frame_bytes=32 << 10, segment_bytes=8 << 10)
    write_journal(folder / "binance", first.epoch, first.frames, group=100, limits=limits)
    write_journal(folder / "binance", second.epoch, second.frames, group=100)
    add_instrument(lake)
    return [first, second]


def test_a_rebuild_that_was_ended_goes_on_and_doubles_nothing(tmp_path: Path, new_lake: str, scratch: str) -> None:
    traffic = prepared(tmp_path, new_lake)

    def stop_at_the_second(_: object, number: int, __: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild([tmp_path], new_lake, scratch, on_epoch=stop_at_the_second)
    assert count(new_lake, "trades") == len(traffic[0].trades)
    report = rebuild([tmp_path], new_lake, scratch)
    assert (report.done_before, report.is_whole) == (1, True)
    assert count(new_lake, "trades") == sum(len(one.trades) for one in traffic)
    again = rebuild([tmp_path], new_lake, scratch)
    assert (again.done_before, again.inserted) == (2, 0)
    with psycopg.connect(scratch) as connection:  # as if ended between merging and noting that
        connection.execute("DELETE FROM rebuilt")
    assert rebuild([tmp_path], new_lake, scratch).inserted == 0
    assert ask(new_lake, "SELECT count(*), count(DISTINCT (epoch, channel, started_at)) FROM coverage") == [(4, 4)]


def test_a_missing_segment_is_named_and_nothing_is_covered_across_it(
    tmp_path: Path, new_lake: str, scratch: str
) -> None:
    first, _ = prepared(tmp_path, new_lake)
    names = sorted(path.name for path in tmp_path.rglob(f"{first.epoch}-*"))
    assert len(names) > 2
    (tmp_path / "binance" / names[1]).unlink()
    report = rebuild([tmp_path], new_lake, scratch)
    assert report.missing == [f"ing1/binance {first.epoch}-000001"]
    assert not report.is_whole
    ended = ask(new_lake, f"SELECT DISTINCT ended_by FROM coverage WHERE epoch = {first.epoch} ORDER BY 1")
    assert ended == [("disk",), ("shutdown",)]
    had = {row[0] for row in ask(new_lake, f"SELECT received_at FROM trades WHERE epoch = {first.epoch}")}
    covered = ask(
        new_lake,
        "SELECT count(*) FROM trades AS t WHERE EXISTS (SELECT FROM coverage AS c WHERE c.epoch = t.epoch"
        f" AND c.channel = 'trades' AND t.received_at BETWEEN c.started_at AND c.ended_at) AND epoch = {first.epoch}",
    )
    assert covered == [(len(had),)]
    whole = "SELECT sum(extract(epoch FROM ended_at - started_at)) FROM coverage WHERE channel = 'trades'"
    ((seconds,),) = ask(new_lake, f"{whole} AND epoch = {first.epoch}")
    assert float(seconds) < (first.now - first.epoch) / 1e9


def test_what_is_not_empty_is_refused_and_left_alone(tmp_path: Path, new_lake: str, scratch: str) -> None:
    prepared(tmp_path, new_lake)
    with psycopg.connect(new_lake) as connection:
        connection.execute("INSERT INTO sources (incarnation, ingestor) VALUES (gen_random_uuid(), 'ing7')")
    with pytest.raises(UsageError, match="merged from ing7"):
        rebuild([tmp_path], new_lake, scratch)
    with psycopg.connect(new_lake) as connection:
        connection.execute("DELETE FROM sources")
        connection.execute("UPDATE instruments SET exchange = 'okx'")
    with pytest.raises(UsageError, match="no instrument of binance"):
        rebuild([tmp_path], new_lake, scratch)
    with psycopg.connect(new_lake) as connection:
        connection.execute("UPDATE instruments SET exchange = 'binance'")
    with psycopg.connect(scratch) as connection:
        connection.execute("INSERT INTO streams (ingestor, name, exchange) VALUES ('ing1', 'binance', 'binance')")
        connection.execute(
            "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version, frames,"
            " trades, quotes, book_events, parked, rejected) VALUES (1, 1, 's', 0, 0, 'v', 0, 0, 0, 0, 0, 0)"
        )
    with pytest.raises(UsageError, match="holds 1 load batches"):
        rebuild([tmp_path], new_lake, scratch)
    assert count(scratch, "load_batches") == 1
    assert count(new_lake, "trades") == 0


def test_damage_is_counted_and_the_rest_is_there(tmp_path: Path, new_lake: str, scratch: str) -> None:
    traffic = prepared(tmp_path, new_lake)
    (path,) = tmp_path.rglob(f"{traffic[1].epoch}-*")
    path.write_bytes(path.read_bytes()[:-9])
    report: Report = rebuild([tmp_path], new_lake, scratch)
    assert (report.damages, report.is_whole) == (1, False)
    assert count(new_lake, "trades") >= len(traffic[0].trades)
