"""Sync against ground truth: whatever the ingestors hold of it, the datalake has their union, each event once."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from collectors.config import Source, Sync
from collectors.sync import SyncError, SyncReport, SyncRunningError, sync_once
from tests.conftest import fresh_database

pytestmark = pytest.mark.database
Fresh = Callable[[str], AbstractContextManager[str]]

T0 = datetime(2026, 11, 20, 10, 59, 50, tzinfo=UTC)  # the events cross an hour and a chunk's width is never reached
EVENTS = 60
ROOT = Path(__file__).resolve().parents[2]


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, client_encoding="UTF8")


def as_role(dsn: str, role: str) -> str:
    """The same database with no more rights than the role has: what sync runs with on a host."""
    return make_conninfo(dsn, options=f"-c role={role}")


def moment(i: int) -> datetime:
    return T0 + timedelta(milliseconds=300 * i)


def trade(i: int) -> dict[str, Any]:
    return {
        "instrument_id": 1 + i % 2, "time": moment(i), "trade_id": str(9000 + i), "is_buy": [True, False, None][i % 3],
        "price": Decimal(f"{60000 + i}.{i % 10}0"), "amount": Decimal(f"0.{i + 1:05}"),
    }  # fmt: skip


def quote(i: int) -> dict[str, Any]:
    return {
        "instrument_id": 1 + i % 2, "update_id": 70_000 + i, "bid_price": Decimal(f"{60000 + i}.10"),
        "bid_amount": Decimal("1.50000"), "ask_price": Decimal(f"{60001 + i}.10"), "ask_amount": Decimal(f"{i}.25"),
    }  # fmt: skip


def book_event(i: int) -> dict[str, Any]:
    """A snapshot each twenty events (ids start over the updates before it), updates of ten ids between."""
    levels = [Decimal(f"{100 + i}.50"), Decimal("99.00")]
    event = {
        "instrument_id": 1, "is_snapshot": i % 20 == 0, "first_id": 10 * i + 1, "last_id": 10 * i + 10,
        "time": moment(i),
        "bid_prices": levels, "bid_amounts": [Decimal("1.0"), Decimal(0)], "ask_prices": [Decimal("200.00")],
        "ask_amounts": [Decimal(f"{i + 1}.5")],
    }  # fmt: skip
    return event | ({"first_id": None, "time": None} if event["is_snapshot"] else {})


MAKE = {"trades": trade, "quotes": quote, "book_events": book_event}
PAYLOAD = {
    channel: tuple(key for key in make(0) if channel != "book_events" or key != "time")
    for channel, make in MAKE.items()
}


class Lab:
    """Two ingestors and a datalake, emptied between examples."""

    def __init__(self, ingestors: dict[str, str], datalake: str) -> None:
        self.ingestors = ingestors
        self.datalake = datalake
        self.config = Sync(
            as_role(datalake, "cryptopip_sync_writer"),
            [Source(name, as_role(dsn, "cryptopip_sync_reader")) for name, dsn in ingestors.items()],
        )

    def clear(self) -> None:
        for name, dsn in self.ingestors.items():
            with connect(dsn) as db:
                db.execute(
                    "TRUNCATE instruments, streams, load_batches, connections, coverage, journal_damage, parked_frames,"
                    " rejected_events, journal_positions, trades, quotes, book_events RESTART IDENTITY CASCADE"
                )
                db.execute("UPDATE incarnation SET id = gen_random_uuid()")
                db.execute(
                    "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
                    " VALUES (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01'),"
                    " (2, 'binance', 'ETH/USDT', 'ETHUSDT', 'spot', 'ETH', 'USDT', '2020-01-01')"
                )
                db.execute("INSERT INTO streams (ingestor, name, exchange) VALUES (%s, 'binance', 'binance')", [name])
        with connect(self.datalake) as db:
            db.execute(
                "TRUNCATE recording, instruments, sources, watermarks, connections, coverage, digests, sync_conflicts,"
                " trades, quotes, book_events CASCADE"
            )

    def load(self, ingestor: str, batch: int, events: list[int], lag_ms: int = 20, **changed: Any) -> None:
        """Write the events as one load batch, as a loader does; ``changed`` overrides fields of trades."""
        received = [moment(i) + timedelta(milliseconds=lag_ms + n) for n, i in enumerate(events)]
        with connect(self.ingestors[ingestor]) as db, db.transaction():
            for channel, make in MAKE.items():
                for at, i in zip(received, events, strict=True):
                    row = make(i) | (changed if channel == "trades" else {})
                    row |= {"received_at": at, "batch": batch, "epoch": 1, "stream_id": 1}
                    db.execute(
                        f"INSERT INTO {channel} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
                        list(row.values()),
                    )
            db.execute(
                "INSERT INTO load_batches VALUES (1, %s, 's', 0, 0, 'v', %s, %s, 0, %s, %s, %s, 0, 0)",
                [batch, min(received, default=None), max(received, default=None), *[len(events)] * 3],
            )

    def sync(self, **options: Any) -> SyncReport:
        return sync_once(self.config, **options)

    def rows(self, channel: str) -> Counter[tuple[Any, ...]]:
        with connect(self.datalake) as db:
            return Counter(as_key(row) for row in db.execute(f"SELECT {', '.join(PAYLOAD[channel])} FROM {channel}"))

    def digests(self) -> dict[tuple[int, str, datetime], tuple[int, int]]:
        with connect(self.datalake) as db:
            found = db.execute("SELECT instrument_id, channel, hour, rows, hash FROM digests").fetchall()
        return {(i, channel, hour): (rows, int(total)) for i, channel, hour, rows, total in found}

    def assert_equals(self, events: set[int]) -> None:
        for channel, make in MAKE.items():
            truth = Counter(as_key([make(i)[key] for key in PAYLOAD[channel]]) for i in events)
            assert self.rows(channel) == truth


def as_key(row: Any) -> tuple[Any, ...]:
    """Decimals by their text, so that every digit counts."""
    return tuple(str(value) for value in row)


@pytest.fixture(scope="module")
def fresh(server_dsn: str) -> Fresh:
    """A migrated database of a kind, dropped at the end of its with block."""
    return partial(contextmanager(fresh_database), server_dsn)


@pytest.fixture(scope="module")
def lab(server_dsn: str, fresh: Fresh) -> Iterator[Lab]:
    with fresh("ingestor") as first, fresh("ingestor") as second, fresh("datalake") as lake:
        yield Lab({"ing1": first, "ing2": second}, lake)


@pytest.fixture
def clean(lab: Lab) -> Lab:
    lab.clear()
    return lab


deliveries = st.lists(
    st.tuples(
        st.sampled_from(["ing1", "ing2"]), st.lists(st.integers(0, EVENTS - 1), max_size=12), st.integers(0, 3000)
    ),
    max_size=12,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries, st.lists(st.booleans(), min_size=12, max_size=12), st.sampled_from([1, 40, 10_000]))
def test_any_interleaving_duplication_and_loss_gives_the_union_and_its_digest(
    lab: Lab, delivered: list[tuple[str, list[int], int]], pulls: list[bool], max_weight: int
) -> None:
    lab.clear()
    last: Counter[str] = Counter()
    for (ingestor, events, lag), pull in zip(delivered, pulls, strict=False):
        last[ingestor] += 1
        lab.load(ingestor, last[ingestor], events, lag)
        if pull:
            assert not lab.sync(max_weight=max_weight).failed
    report = lab.sync(max_weight=max_weight)
    assert (report.failed, report.conflicts) == ([], 0)
    lab.assert_equals({i for _, events, _ in delivered for i in events})
    assert lab.digests() == digests_of(lab)
    assert lab.sync().pulled == 0


def digests_of(lab: Lab) -> dict[tuple[int, str, datetime], tuple[int, int]]:
    """Digests computed here from the documented texts; only the hour is taken from the stored row."""
    found: dict[tuple[int, str, datetime], tuple[int, int]] = {}
    with connect(lab.datalake) as db:
        for channel in MAKE:
            for event_time, *values in db.execute(f"SELECT time, {', '.join(PAYLOAD[channel])} FROM {channel}"):
                text = text_of(channel, dict(zip(PAYLOAD[channel], values, strict=True)))
                hashed = int.from_bytes(hashlib.md5(text.encode()).digest()[:8], signed=True)
                key = (values[0], channel, event_time.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
                rows, total = found.get(key, (0, 0))
                found[key] = (rows + 1, total + hashed)
    return found


def text_of(channel: str, e: dict[str, Any]) -> str:
    def array(values: list[Decimal]) -> str:
        return "{" + ",".join(map(str, values)) + "}"

    if channel == "trades":
        side = {True: "buy", False: "sell", None: ""}[e["is_buy"]]
        us = (e["time"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        return f"trades|{e['instrument_id']}|{us}|{e['trade_id']}|{side}|{e['price']}|{e['amount']}||"
    if channel == "quotes":
        parts = (e[key] for key in ("instrument_id", "update_id", "bid_price", "bid_amount", "ask_price", "ask_amount"))
        return "|".join(["quotes", *map(str, parts)])
    kind = "snapshot" if e["is_snapshot"] else "update"
    first = "" if e["first_id"] is None else e["first_id"]
    arrays = "|".join(array(e[key]) for key in ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts"))
    return f"book_events|{e['instrument_id']}|{kind}|{first}|{e['last_id']}|{arrays}"


def test_a_new_incarnation_starts_over_and_doubles_nothing(clean: Lab) -> None:
    clean.load("ing1", 1, [1, 2, 3])
    clean.sync()
    with connect(clean.ingestors["ing1"]) as db:
        db.execute("UPDATE incarnation SET id = gen_random_uuid()")
        db.execute("TRUNCATE load_batches, trades, quotes, book_events CASCADE")
    clean.load("ing1", 1, [3, 4], lag_ms=500)
    report = clean.sync()
    assert (report.pulled, report.inserted) == (6, 3)
    clean.assert_equals({1, 2, 3, 4})


def test_a_quote_without_exchange_time_gets_the_earliest_receive_time_merged_together(clean: Lab) -> None:
    clean.load("ing1", 1, [5], lag_ms=900)
    clean.load("ing1", 2, [5], lag_ms=100)
    clean.load("ing2", 1, [5], lag_ms=10)
    clean.sync()
    with connect(clean.datalake) as db:
        rows = db.execute("SELECT time, received_at, ingestor FROM quotes").fetchall()
    assert rows == [(moment(5) + timedelta(milliseconds=100), moment(5) + timedelta(milliseconds=100), "ing1")]


def test_contradicting_copies_are_counted_and_kept_apart(clean: Lab) -> None:
    clean.load("ing1", 1, [1, 2])
    clean.load("ing2", 1, [1, 2], price=Decimal("1.23"))
    clean.load("ing2", 2, [7])
    clean.load("ing2", 3, [7], price=Decimal("4.56"), lag_ms=900)
    report = clean.sync()
    assert (report.conflicts, report.sources[1].channels["trades"].conflicts) == (3, 3)
    clean.assert_equals({1, 2, 7})
    with connect(clean.datalake) as db:
        found = db.execute("SELECT event_id, ingestor, refused ->> 'price' FROM sync_conflicts ORDER BY 1").fetchall()
    assert found == [("9001", "ing2", "1.23"), ("9002", "ing2", "1.23"), ("9007", "ing2", "4.56")]


def test_a_dead_source_is_reported_and_the_others_go_on(clean: Lab) -> None:
    clean.load("ing2", 1, [1, 2])
    dead = Source("ing1", make_conninfo(clean.ingestors["ing1"], port=1))
    report = sync_once(Sync(clean.config.datalake, [dead, clean.config.sources[1]]))
    assert [(source.ingestor, "cannot connect" in (source.error or "")) for source in report.failed] == [("ing1", True)]
    clean.assert_equals({1, 2})


def test_rows_that_differ_from_what_a_batch_says_are_not_merged(clean: Lab) -> None:
    clean.load("ing1", 1, [1, 2])
    with connect(clean.ingestors["ing1"]) as db:
        db.execute("DELETE FROM quotes WHERE update_id = 70001")
    report = clean.sync()
    assert "say 2 quotes and the table has 1" in (report.failed[0].error or "")
    clean.assert_equals(set())


def test_an_instrument_that_means_another_listing_is_refused(clean: Lab) -> None:
    clean.load("ing1", 1, [1])
    clean.sync()
    with connect(clean.ingestors["ing2"]) as db:
        db.execute("UPDATE instruments SET native_id = 'XRPUSDT' WHERE id = 1")
    clean.load("ing2", 1, [2])
    report = clean.sync()
    assert "instrument 1 is binance XRPUSDT" in (report.failed[0].error or "")
    clean.assert_equals({1})


def test_another_schema_on_an_ingestor_is_named(clean: Lab, server_dsn: str, fresh: Fresh) -> None:
    with fresh("ingestor") as old:
        with connect(old) as db:
            db.execute("ALTER TABLE trades DROP COLUMN epoch; DROP VIEW coverage_intervals; DROP TABLE coverage")
        report = sync_once(Sync(clean.config.datalake, [Source("old", old)]))
    assert "table coverage, column trades.epoch not found" in (report.failed[0].error or "")


def test_a_datalake_without_migrations_is_a_clear_error(server_dsn: str) -> None:
    with pytest.raises(SyncError, match="no table sources, watermarks"):
        sync_once(Sync(make_conninfo(server_dsn, dbname="postgres"), []))


def test_only_one_sync_at_a_time_and_the_second_says_who(clean: Lab) -> None:
    inside, leave = threading.Event(), threading.Event()
    clean.load("ing1", 1, [1])

    def pause(_: object) -> None:
        inside.set()
        assert leave.wait(20)

    first = threading.Thread(target=clean.sync, kwargs={"on_progress": pause})
    first.start()
    assert inside.wait(20)
    try:
        with pytest.raises(SyncRunningError, match=r"server process \d+"):
            clean.sync()
        with pytest.raises(SyncRunningError, match=r"cryptopip sync .* pid \d+', since"):
            sync_once(Sync(clean.datalake, []))
    finally:
        leave.set()
        first.join()
    assert clean.sync().failed == []


def test_coverage_comes_with_its_batches_and_open_intervals_grow(clean: Lab) -> None:
    clean.load("ing1", 1, [1])
    with connect(clean.ingestors["ing1"]) as db:
        db.execute("INSERT INTO connections VALUES (1, 7, %s, %s, NULL, NULL, 1)", [moment(0), moment(10)])
        db.execute(
            "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, first_id, proof, batch)"
            " VALUES (1, 7, 1, 'trades', %s, '9000', 'sequence', 1)",
            [moment(0)],
        )
    clean.sync()
    assert intervals(clean) == [("ing1", moment(0), moment(10), None)]
    clean.load("ing1", 2, [2])
    with connect(clean.ingestors["ing1"]) as db:
        db.execute(
            "UPDATE connections SET alive_until = %s, closed_at = %s, ended_by = 'crash', batch = 2", [moment(20)] * 2
        )
        db.execute("UPDATE coverage SET ended_at = %s, last_id = '9', ended_by = 'crash', batch = 2", [moment(20)])
    clean.sync()
    assert intervals(clean) == [("ing1", moment(0), moment(20), "crash")]


def intervals(lab: Lab) -> list[tuple[Any, ...]]:
    with connect(lab.datalake) as db:
        return db.execute(
            "SELECT ingestor, lower(interval), upper(interval), ended_by FROM coverage_intervals"
        ).fetchall()


SPAWNED = """
import json, sys
from collectors.config import Source, Sync
from collectors.sync import sync_once
datalake, sources = json.loads(sys.argv[1])
config = Sync(datalake, [Source(*source) for source in sources])
sync_once(config, wait=True, max_weight=1, on_progress=lambda progress: print(progress.rows, flush=True))
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sync_killed_anywhere_neither_loses_nor_doubles(clean: Lab, seed: int) -> None:
    rng = random.Random(seed)
    for ingestor in clean.ingestors:
        for batch in range(1, 31):
            clean.load(
                ingestor, batch, [i for i in range(2 * batch - 2, 2 * batch) if rng.random() < 0.9], rng.randrange(50)
            )
    with_rows = held(clean)
    argument = json.dumps([clean.config.datalake, [[s.ingestor, s.database] for s in clean.config.sources]])
    for _ in range(10):  # each merges some whole batches and is killed in, before or after the next
        process = subprocess.Popen([sys.executable, "-c", SPAWNED, argument], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            for _ in range(rng.randrange(1, 4)):
                assert process.stdout.readline(), "it ended before it could be killed: this run proved nothing"
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
        assert process.wait() == -signal.SIGKILL
    assert 0 < sum(clean.rows("trades").values()) < len(with_rows)
    assert clean.sync(wait=True).failed == []
    clean.assert_equals(with_rows)
    assert clean.digests() == digests_of(clean)


def held(lab: Lab) -> set[int]:
    """The events that either ingestor has."""
    found: set[int] = set()
    for dsn in lab.ingestors.values():
        with connect(dsn) as db:
            found |= {int(row[0]) - 9000 for row in db.execute("SELECT trade_id FROM trades")}
    return found
