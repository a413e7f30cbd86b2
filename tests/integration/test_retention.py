"""Pruning an ingestor: only what is protected, merged and, row for row, in the datalake; and nothing changes there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from collectors.config import Retention, Source, Sync
from collectors.decode import decoder
from collectors.digests import Source as Digests
from collectors.digests import Window
from collectors.journal import Limits
from collectors.load import Loader
from collectors.rebuild import rebuild
from collectors.retention import Report, ingestor, prune
from collectors.sync import sync_once
from tests.conftest import fresh_database
from tests.integration.load_harness import ROOT, START_NS, Traffic, add_instrument, ask, count, write_journal

pytestmark = pytest.mark.database
DAY_NS = 86_400 * 10**9
CHANNELS = ("trades", "quotes", "book_events")
OLD = 1_700_500_000  # s: when the files were written to last, as far as their own times say


class Host:
    """An ingestor with two days in its database and its journal, all of it merged."""

    def __init__(self, folder: Path, dsn: str, lake: str) -> None:
        self.journal, self.dsn, self.lake = folder / "journal", dsn, lake
        self.traffic: list[Traffic] = []
        add_instrument(dsn)

    def record(self, day: int, rows: int = 120) -> None:
        """Receive and load that many trades, quotes and updates on a day, in several segments."""
        one = Traffic(START_NS + day * DAY_NS, 1 + 10_000 * day).add(rows)
        self.traffic.append(one)
        limits = Limits(frame_bytes=8 << 10, segment_bytes=2 << 10)
        write_journal(self.journal / "binance", one.epoch, one.frames, group=40, limits=limits)
        Loader(self.journal / "binance", self.dsn, "ing1", decoder("binance")).run(until_idle=True)
        for path in self.files():
            os.utime(path, (OLD, OLD))

    def sync(self) -> int:
        report = sync_once(Sync(self.lake, [Source("ing1", self.dsn)]))
        assert not report.failed
        return report.pulled

    def settings(self, **changed: Any) -> Retention:
        """With no more rights than on a host."""
        database = make_conninfo(self.dsn, options="-c role=cryptopip_pruner")
        datalake = make_conninfo(self.lake, options="-c role=cryptopip_reader")
        known: dict[str, Any] = {"database": database, "datalake": datalake, "days": 7}
        return Retention(**(known | changed))

    def prune(self, *, check: bool = False, free: int = 1 << 50, **changed: Any) -> Report:
        return prune(self.settings(**changed), "ing1", self.journal, check=check, free=lambda _: free)

    def files(self) -> list[Path]:
        return sorted(self.journal.rglob("*.journal.zst"))

    def chunks(self) -> list[str]:
        with psycopg.connect(self.dsn, autocommit=True, options="-c timezone=UTC") as connection:
            return [f"{one.channel} {one.start:%Y-%m-%d}" for one in ingestor.read_chunks(connection)]


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def protect(lake: str, until: str = "clock_timestamp()") -> None:
    execute(lake, f"INSERT INTO protections VALUES ('base_backup', gen_random_uuid()::text, {until})")


def digests(source: str) -> list[Any]:
    return list(Digests(source).digests(Window()))


class Databases(NamedTuple):
    """Made once for all tests of this file; two of a kind, for what is rebuilt."""

    ingestor: str
    lake: str
    other_lake: str
    scratch: str


_OF_LAKE = (
    "recording, instruments, sources, watermarks, connections, coverage, digests, sync_conflicts, protections, trades,"
    " quotes, book_events"
)
_OF_INGESTOR = "instruments, streams, journal_positions, pruned_chunks, coverage_states, trades, quotes, book_events"


@pytest.fixture(scope="module")
def databases(server_dsn: str) -> Iterator[Databases]:
    with ExitStack() as stack:
        fresh = contextmanager(fresh_database)
        kinds = ("ingestor", "datalake", "datalake", "ingestor")
        yield Databases(*(stack.enter_context(fresh(server_dsn, kind)) for kind in kinds))


@pytest.fixture
def host(tmp_path: Path, databases: Databases) -> Host:
    for dsn, tables in (
        (databases.ingestor, _OF_INGESTOR),
        (databases.scratch, _OF_INGESTOR),
        (databases.lake, _OF_LAKE),
        (databases.other_lake, _OF_LAKE),
    ):
        execute(dsn, f"TRUNCATE {tables} RESTART IDENTITY CASCADE; DROP TABLE IF EXISTS rebuilt")
    made = Host(tmp_path, databases.ingestor, databases.lake)
    made.record(0)
    made.record(1)
    made.sync()
    assert len(made.chunks()) == 6
    assert len(made.files()) > 6
    return made


def test_nothing_verified_nothing_pruned(host: Host) -> None:
    for _ in range(2):
        report = host.prune()
        assert (report.pruned, len(report.kept)) == ([], 6 + len(host.files()))
        assert all("nothing is protected" in " ".join(item.held) for item in report.kept)
    assert len(host.chunks()) == 6


def test_what_is_protected_and_merged_goes_and_sync_and_rebuild_are_equal_afterwards(
    host: Host, databases: Databases, tmp_path: Path
) -> None:
    before = digests(host.lake)
    shutil.copytree(host.journal, tmp_path / "off-site")
    host.prune()
    protect(host.lake)
    report = host.prune()
    assert (host.chunks(), host.files(), report.kept, report.lacking) == ([], [], [], [])
    assert report.rows_compared == sum(count(host.lake, channel) for channel in CHANNELS) == 720
    assert report.freed > 0
    assert host.sync() == 0
    host.record(2, 30)
    assert host.sync() == 90
    assert [one for one in digests(f"rows:{host.lake}") if one in before] == before
    assert digests(host.lake) == digests(f"rows:{host.lake}")
    lake, scratch = databases.other_lake, databases.scratch
    add_instrument(lake)
    shutil.copytree(host.journal, tmp_path / "off-site", dirs_exist_ok=True)
    assert rebuild([tmp_path / "off-site"], lake, scratch).is_whole
    assert digests(lake) == digests(host.lake)


def test_a_datalake_made_anew_gets_what_is_newer_than_what_was_pruned_and_is_told_what_it_lacks(
    host: Host, databases: Databases
) -> None:
    host.prune()
    protect(host.lake)
    host.prune()
    host.record(2, 30)
    host.lake = databases.other_lake
    add_instrument(host.lake)
    reader = make_conninfo(host.dsn, options="-c role=cryptopip_sync_reader")
    with capture_logs() as logs:
        report = sync_once(Sync(host.lake, [Source("ing1", reader)]))
    assert report.failed == []
    assert [count(host.lake, channel) for channel in CHANNELS] == [30, 30, 30]
    told = {channel: sum(log.get("rows", 0) for log in logs if log.get("channel") == channel) for channel in CHANNELS}
    assert told == dict.fromkeys(CHANNELS, 240)
    assert host.sync() == 0
    execute(host.lake, "DELETE FROM watermarks")
    execute(host.dsn, "DELETE FROM pruned_chunks WHERE channel = 'quotes'")
    (failed,) = sync_once(Sync(host.lake, [Source("ing1", reader)])).failed
    assert "quotes and the table has" in (failed.error or "")


def test_what_came_behind_the_protection_stays(host: Host) -> None:
    host.prune()
    protect(host.lake, "'2023-11-15 12:00Z'")  # a backup that was begun then, between the two days
    report = host.prune()
    assert report.pruned == []
    assert any("reach up to 2023-11-15" in reason for item in report.kept for reason in item.held)


def test_what_was_merged_after_the_backup_was_made_stays_until_the_next(host: Host) -> None:
    protect(host.lake)  # nobody had seen yet that it was merged
    report = host.prune()
    assert report.pruned == []
    assert all("merged after what the newest verified backup holds" in " ".join(item.held) for item in report.kept)
    protect(host.lake)
    host.record(3)
    host.sync()  # the third day missed that backup
    host.prune()
    assert host.chunks() == [f"{channel} 2023-11-17" for channel in sorted(CHANNELS)]
    protect(host.lake)
    host.prune()
    assert host.chunks() == []


def test_marks_of_another_datalake_say_nothing(host: Host, databases: Databases) -> None:
    host.prune()
    host.lake = databases.other_lake  # made anew, merged anew, and the backup verified before that
    add_instrument(host.lake)
    host.sync()
    protect(host.lake, "(SELECT first_seen - interval '1 ms' FROM sources)")
    assert host.prune(check=True).pruned == []


def test_an_unmerged_batch_keeps_its_chunks_and_segments(host: Host) -> None:
    host.record(2)
    host.prune()
    protect(host.lake)
    report = host.prune()
    assert host.chunks() == [f"{channel} 2023-11-16" for channel in sorted(CHANNELS)]
    assert {path.name.split("-")[0] for path in host.files()} == {str(host.traffic[2].epoch)}
    assert all("is merged up to batch" in " ".join(item.held) for item in report.kept)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM trades WHERE trade_id = '10005'", "trades 2023-11-15 22:00: 1 rows missing or other"),
        ("UPDATE quotes SET bid_amount = 9 WHERE update_id = 3", "quotes 2023-11-14 22:00: 1 rows missing or other"),
        (
            "UPDATE book_events SET ask_prices[1] = 1, time = time WHERE last_id IN (3, 5)",
            "book_events 2023-11-14 22:00: 2 rows missing or other",
        ),
    ],
)
def test_a_row_that_the_datalake_lacks_keeps_its_chunk_and_names_the_hour(host: Host, harm: str, said: str) -> None:
    host.prune()
    protect(host.lake)
    execute(host.lake, harm)
    config = host.journal.parent / "cryptopip.yml"
    settings = host.settings()
    config.write_text(
        json.dumps(
            {
                "ingestor": "ing1",
                "journal": str(host.journal),
                "retention": {"database": settings.database, "datalake": settings.datalake, "days": settings.days},
            }
        )
    )
    done = subprocess.run(command(config), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert f"binance BTCUSDT {said}" in done.stdout
    channel, day = said.split()[:2]
    assert host.chunks() == [f"{channel} {day}"]
    epoch = str(host.traffic[int(day[-2:]) - 14].epoch)
    assert {path.name.split("-")[0] for path in host.files()} == {epoch}, "its segments stay too"


def command(config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "collectors", "prune", "--config", str(config), *more]


def test_a_copy_that_was_refused_and_noted_is_no_reason_to_stay(host: Host) -> None:
    execute(host.lake, "UPDATE trades SET price = 1 WHERE trade_id = '5'")
    execute(host.lake, "DELETE FROM watermarks")  # merged again, it is found to contradict
    host.sync()
    assert count(host.lake, "sync_conflicts") == 1
    host.prune()
    protect(host.lake)
    assert host.prune().lacking == []
    assert host.chunks() == []


def state_of(host: Host) -> Any:
    tables = ("merged_marks", "pruned_chunks", *CHANNELS)
    return [ask(host.dsn, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in tables], host.files()


def test_a_check_says_what_would_go_and_changes_nothing(host: Host) -> None:
    host.prune(check=True)
    assert count(host.dsn, "merged_marks") == 0
    host.prune()
    protect(host.lake)
    before = state_of(host)
    told = host.prune(check=True)
    assert state_of(host) == before
    assert (told.pruned, told.kept) == ((done := host.prune()).pruned, done.kept)
    assert len(told.pruned) > 12


def test_killed_midway_it_has_lost_nothing_and_the_next_run_ends_it(host: Host) -> None:
    before = digests(f"rows:{host.lake}")
    host.prune()
    protect(host.lake)
    settings = host.settings()
    script = (
        "import os, signal; from pathlib import Path; from collectors.config import Retention;"
        " from collectors.retention import prune; left = [3]\n"
        "def on_item(item):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"prune(Retention({settings.database!r}, {settings.datalake!r}, 7), 'ing1', Path({str(host.journal)!r}),"
        " on_item=on_item)"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert (len(host.chunks()), count(host.dsn, "pruned_chunks")) == (3, 3), "cut in the middle"
    assert len(host.files()) > 6
    assert host.sync() == 0
    host.prune()
    assert (host.chunks(), host.files()) == ([], [])
    assert digests(f"rows:{host.lake}") == before


def test_under_disk_pressure_chunks_go_that_journals_can_rebuild_and_journals_never(
    host: Host, databases: Databases
) -> None:
    assert host.prune(free=0, min_free_gib=0).pruned == [], "no limit, no pressure"
    sizes = {item.what: item.bytes for item in host.prune(check=True).kept}
    need = sizes["book_events 2023-11-14"] + 1  # what the oldest chunk gives is a byte short
    report = host.prune(free=(1 << 30) - need, min_free_gib=1, days=36_500)
    assert [item.what for item in report.pruned] == ["book_events 2023-11-14", "quotes 2023-11-14"]
    assert all(item.under_pressure for item in report.pruned)
    report = host.prune(free=0, min_free_gib=1, days=36_500)
    assert host.chunks() == []
    assert len(host.files()) > 6
    assert host.sync() == 0
    lake, scratch = databases.other_lake, databases.scratch
    add_instrument(lake)
    assert rebuild([host.journal], lake, scratch).is_whole
    assert digests(lake) == digests(host.lake)
    protect(host.lake)
    host.prune(free=0, min_free_gib=1, days=36_500)  # journals give way to pressure once they are protected
    assert host.files() == []


def test_under_disk_pressure_a_chunk_stays_that_no_journal_or_no_merge_would_bring_back(host: Host) -> None:
    host.files()[0].unlink()  # of the first day
    host.record(2)  # not merged
    host.prune(free=0, min_free_gib=1, days=36_500)
    assert host.chunks() == [f"{channel} 2023-11-{day}" for day in (14, 16) for channel in sorted(CHANNELS)]


def test_a_chunk_that_got_rows_since_it_was_compared_is_not_dropped(host: Host) -> None:
    with psycopg.connect(host.settings().database, autocommit=True) as connection:
        chunk = ingestor.read_chunks(connection)[0]
        newest = ask(host.dsn, "SELECT max(batch) FROM load_batches")[0][0]
        first = ask(host.dsn, "SELECT max(batch) FROM load_batches WHERE received_from < '2023-11-15'")[0][0]
        assert not ingestor.drop(connection, chunk, {1: first - 1})
        assert (len(host.chunks()), count(host.dsn, "pruned_chunks")) == (6, 0)
        assert ingestor.drop(connection, chunk, {1: newest})
        assert (len(host.chunks()), count(host.dsn, "pruned_chunks")) == (5, 1)
        with pytest.raises(psycopg.errors.RaiseException, match="may still be written"):
            connection.execute("SELECT prune_chunk('trades', tstzrange(now(), now() + interval '1 day'))")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM trades")


def test_frames_that_wait_keep_their_segment(host: Host) -> None:
    name = host.files()[0].name
    execute(
        host.dsn,
        "INSERT INTO parked_frames (stream_id, batch, segment, line_offset, line_length, epoch, received_at, reason,"
        f" detail) VALUES (1, 1, '{name}', 0, 1, 1, '2023-11-14 22:13:21Z', 'decode', 'x')",
    )
    host.prune()
    protect(host.lake)
    report = host.prune()
    assert (host.chunks(), [path.name for path in host.files()]) == ([], [name])
    assert report.kept[0].held == ["1 of its frames are parked: see parked_frames for why, and load them"]


def test_a_database_that_is_none_is_named(host: Host, databases: Databases) -> None:
    with pytest.raises(Exception, match=r"the ingestor's database has no incarnation, .*: migrate it first"):
        host.prune(database=databases.lake)
    with pytest.raises(Exception, match=r"the datalake has no sources, .*: migrate it first"):
        host.prune(datalake=host.dsn)
