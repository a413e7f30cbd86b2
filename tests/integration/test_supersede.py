"""Loading journals again with a newer decoder: the old rows are superseded at once, or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from collectors.decode import DecodeError, decoder
from collectors.decode.contract import Decoder
from collectors.errors import UsageError
from collectors.events import BookEvent, Event, Trade
from collectors.journal import Limits
from collectors.load import Database, Loader, ReloadError, StreamTakenError, reload
from tests.conftest import fresh_database
from tests.integration.load_harness import (
    QUOTES,
    ROOT,
    START_NS,
    TRADES,
    UPDATES,
    Traffic,
    add_instrument,
    ask,
    count,
    load,
    until_more,
    write_journal,
)

pytestmark = pytest.mark.database
NEW = decoder("binance")


class Old(Decoder):
    """Binance's decoder as it might have been: drops, doubles and misreads some trades, refuses some book updates."""

    exchange = "binance"
    version = "binance-0"
    documentation = NEW.documentation
    streams = NEW.streams

    def decode(self, payload: bytes) -> Sequence[Event]:
        out: list[Event] = []
        for event in NEW.decode(payload):
            if isinstance(event, Trade) and event.trade_id is not None:
                n = int(event.trade_id)
                if n % 7 == 0:
                    continue
                if n % 11 == 0:
                    out.append(Trade(event.native_id, event.time, f"9{n}", event.is_buy, event.price, event.amount))
                if n % 13 == 0:
                    event.price += "1"
            if isinstance(event, BookEvent) and event.last_id is not None and event.last_id % 17 == 0:
                raise DecodeError("an old decoder did not know this")
            out.append(event)
        return out

    def _events(self, payload: bytes) -> Sequence[Event]:
        return NEW.decode(payload)

    def _control(self, payload: bytes) -> Any:
        return NEW.control(payload)

    def decode_snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        return NEW.decode_snapshot(native_id, reply)


_RELOADER = """
import sys
from pathlib import Path
from collectors.decode import decoder
from collectors.load import reload
reload(Path(sys.argv[1]), sys.argv[2], "ing1", decoder("binance"), piece_bytes=16 << 10)
"""
IN_FORCE = (
    "(SELECT t.* FROM {0} AS t INNER JOIN load_batches USING (stream_id, batch) WHERE superseded_by IS NULL) AS t"
)
COVERAGE = (
    "SELECT epoch, instrument_id, channel, started_at, ended_at, first_id, last_id, proof, ended_by FROM coverage"
    " ORDER BY 1, 2, 3, 4"
)


def load_old(folder: Path, dsn: str) -> None:
    Loader(folder, dsn, "ing1", Old(), piece_bytes=64 << 10).run(until_idle=True)


def in_force(query: str) -> str:
    for table in ("trades", "quotes", "book_events"):
        query = query.replace(f"FROM {table} ", f"FROM {IN_FORCE.format(table)} ")
    return query


def state(dsn: str) -> list[Any]:
    """Rows in force, coverage, and the parked and rejected."""
    queries = (
        TRADES, QUOTES, UPDATES, COVERAGE,
        "SELECT segment, line_offset, reason, resolved_batch IS NULL AS waits FROM parked_frames"
        " WHERE resolved_batch IS NULL ORDER BY 1, 2",
        "SELECT segment, line_offset, reason FROM rejected_events ORDER BY 1, 2",
        "SELECT epoch, opened_at, alive_until, closed_at, ended_by FROM connections ORDER BY 1",
    )  # fmt: skip
    return [sorted(ask(dsn, in_force(query)), key=str) for query in queries]


@pytest.fixture
def journal(tmp_path: Path, ingestor_dsn: str) -> tuple[Path, list[Traffic]]:
    """Two connections, the first in several segments; the second has a trade of 1970 and a frame that is none."""
    folder = tmp_path / "binance"
    first, second = Traffic().add(900), Traffic(START_NS + 10**12, 5000).add(300)
    far = '{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":1,"p":"1","q":"2","T":5,"m":true}}'
    strange = [(second.now + 1, far), (second.now + 2, '{"stream":"btcusdt@trade","data":{"e":"odd"}}')]
    write_journal(
        folder, first.epoch, first.frames, group=100, limits=Limits(frame_bytes=64 << 10, segment_bytes=20 << 10)
    )
    write_journal(folder, second.epoch, [*second.frames, *strange], group=100)
    assert len(list(folder.glob(f"{first.epoch}-*"))) > 1
    add_instrument(ingestor_dsn)
    return folder, [first, second]


def test_a_reload_leaves_what_the_new_decoder_alone_would_have_loaded(
    journal: tuple[Path, list[Traffic]], ingestor_dsn: str, server_dsn: str
) -> None:
    folder, _ = journal
    load_old(folder, ingestor_dsn)
    assert count(ingestor_dsn, "parked_frames") > 10
    outcomes = reload(folder, ingestor_dsn, "ing1", NEW, piece_bytes=64 << 10)
    assert [outcome.totals is not None for outcome in outcomes] == [True, True]
    with contextmanager(fresh_database)(server_dsn, "ingestor") as dsn:
        add_instrument(dsn)
        load(folder, dsn)
        assert state(ingestor_dsn) == state(dsn)
    batches = ask(ingestor_dsn, "SELECT batch, superseded_by, reload_to FROM load_batches ORDER BY 1")
    assert [row[0] for row in batches] == list(range(1, len(batches) + 1))
    for _, superseded_by, reload_to in batches:
        assert (superseded_by is None) != (reload_to is None)
    again = reload(folder, ingestor_dsn, "ing1", NEW)
    assert [outcome.said for outcome in again] == ["was loaded by this decoder (binance-1) already"] * 2
    assert len(ask(ingestor_dsn, "SELECT batch FROM load_batches")) == len(batches)


def test_a_segment_names_its_epoch_and_no_other(journal: tuple[Path, list[Traffic]], ingestor_dsn: str) -> None:
    folder, (first, second) = journal
    load_old(folder, ingestor_dsn)
    (name,) = (path.name for path in folder.glob(f"{second.epoch}-*"))
    (outcome,) = reload(folder, ingestor_dsn, "ing1", NEW, [name])
    assert outcome.epoch == second.epoch
    superseded = ask(ingestor_dsn, "SELECT DISTINCT segment FROM load_batches WHERE superseded_by IS NOT NULL")
    assert superseded == [(name,)]
    with pytest.raises(UsageError, match=r"never loaded from .*: nonsense"):
        reload(folder, ingestor_dsn, "ing1", NEW, ["nonsense"])
    first_name = min(path.name for path in folder.glob(f"{first.epoch}-*"))
    (folder / first_name).rename(folder / "elsewhere")
    before = state(ingestor_dsn)
    with pytest.raises(ReloadError, match=f"{first_name} not in"):
        reload(folder, ingestor_dsn, "ing1", NEW, [max(path.name for path in folder.glob(f"{first.epoch}-*"))])
    assert state(ingestor_dsn) == before


def test_a_journal_that_was_damaged_since_is_refused_and_nothing_changes(
    journal: tuple[Path, list[Traffic]], ingestor_dsn: str
) -> None:
    folder, (_, second) = journal
    load_old(folder, ingestor_dsn)
    before = state(ingestor_dsn)
    (path,) = folder.glob(f"{second.epoch}-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = b"\x00" * 50
    path.write_bytes(data)
    with pytest.raises(ReloadError, match="can no longer be read as when it was loaded"):
        reload(folder, ingestor_dsn, "ing1", NEW, [path.name])
    assert state(ingestor_dsn) == before
    assert count(ingestor_dsn, "journal_damage") == 0


def test_a_loader_at_work_is_not_disturbed(
    journal: tuple[Path, list[Traffic]], ingestor_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = journal
    load_old(folder, ingestor_dsn)
    monkeypatch.setattr("collectors.load.supersede._PATIENCE_SECONDS", 0.1)
    with Database(ingestor_dsn, "ing1", "binance", NEW) as other:
        assert other.try_lock()
        with pytest.raises(StreamTakenError, match="stop its loader"):
            reload(folder, ingestor_dsn, "ing1", NEW)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_reload_killed_anywhere_has_not_happened(
    journal: tuple[Path, list[Traffic]], ingestor_dsn: str, seed: int
) -> None:
    folder, _ = journal
    load_old(folder, ingestor_dsn)
    before = state(ingestor_dsn)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    )
    process = subprocess.Popen([sys.executable, "-c", _RELOADER, str(folder), ingestor_dsn], cwd=ROOT)
    until_more(ingestor_dsn, query, 0, process)
    time.sleep(random.Random(seed).uniform(0, 0.05))
    process.kill()
    assert process.wait() != 0, "it ended before it could be killed: this run proved nothing"
    with psycopg.connect(ingestor_dsn, autocommit=True) as connection:
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cryptopip load%'"
            " AND datname = current_database()"
        ).fetchone() != (0,):
            time.sleep(0.05)
    done = ask(ingestor_dsn, "SELECT count(*) FILTER (WHERE superseded_by IS NOT NULL) FROM load_batches")
    if done == [(0,)]:
        assert state(ingestor_dsn) == before
    reload(folder, ingestor_dsn, "ing1", NEW)
    for query, table in ((TRADES, "trades"), (QUOTES, "quotes")):
        truth = sum(len(getattr(one, table)) for one in journal[1])
        assert len(ask(ingestor_dsn, in_force(query))) == truth
