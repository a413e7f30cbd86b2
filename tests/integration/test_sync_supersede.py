"""Sync of epochs loaded again: whatever came in which order, the history is what is in force, by rows and by digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from collectors.config import Source, Sync
from collectors.digests import Source as DigestSource
from collectors.digests import Window
from collectors.sync import SyncReport, sync_once
from tests.conftest import fresh_database

pytestmark = pytest.mark.database
T0 = datetime(2026, 11, 20, 10, 59, 59, tzinfo=UTC)
CHANNELS = ("trades", "quotes", "book_events", "derivatives", "liquidations")


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, client_encoding="UTF8")


def trade(i: int, exchange: str, *, wrong: bool) -> dict[str, Any]:
    """``wrong``: as a decoder reads it that takes the amount for one digit less; without ids two of four are equal."""
    event = {
        "instrument_id": 1, "time": T0 + timedelta(milliseconds=400 * (i // 2)), "is_buy": True,
        "price": Decimal("60000.10"), "amount": Decimal(f"0.{i // 2 + 1}0" if not wrong else f"0.{i // 2 + 1}"),
    }  # fmt: skip
    return event | ({"trade_id": str(100 + i)} if exchange == "binance" else {})


def quote(i: int) -> dict[str, Any]:
    return {
        "instrument_id": 1, "update_id": 500 + i, "bid_price": Decimal(i + 1), "bid_amount": Decimal("1.0"),
        "ask_price": Decimal(i + 2), "ask_amount": Decimal("2.0"),
    }  # fmt: skip


class Lab:
    """Ingestors whose journals this test decodes itself, well or badly, and a datalake."""

    def __init__(self, ingestors: dict[str, str], datalake: str) -> None:
        self.ingestors = ingestors
        self.datalake = datalake
        self.config = self.config_of(*ingestors)
        self.exchange = "binance"

    def config_of(self, *names: str) -> Sync:
        return Sync(
            make_conninfo(self.datalake, options="-c role=cryptopip_sync_writer"),
            [
                Source(name, make_conninfo(self.ingestors[name], options="-c role=cryptopip_sync_reader"))
                for name in names
            ],
        )

    def clear(self, exchange: str = "binance") -> None:
        self.exchange = exchange
        for name, dsn in self.ingestors.items():
            with connect(dsn) as db:
                db.execute(
                    "TRUNCATE instruments, streams, load_batches, connections, coverage, "
                    + ", ".join(CHANNELS)
                    + " RESTART IDENTITY CASCADE"
                )
                db.execute("UPDATE incarnation SET id = gen_random_uuid()")
                db.execute(
                    "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
                    " VALUES (1, %s, 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')",
                    [exchange],
                )
                db.execute("INSERT INTO streams (ingestor, name, exchange) VALUES (%s, 'x', %s)", [name, exchange])
        self.empty()

    def empty(self) -> None:
        """Begin the datalake anew."""
        with connect(self.datalake) as db:
            db.execute(
                "TRUNCATE recording, instruments, sources, watermarks, connections, coverage, digests, sync_conflicts,"
                f" supersessions, {', '.join(CHANNELS)} CASCADE"
            )

    def write(self, ingestor: str, epoch: int, frames: list[int], decoded: dict[str, list[dict[str, Any]]]) -> None:
        """One load batch of the epoch's frames (their numbers give the receive times); ``decoded``: rows by channel.

        Sorted as received: the n-th row of a channel belongs to the n-th frame, as far as there are any.
        """
        received = [T0 + timedelta(seconds=epoch, milliseconds=n) for n in range(max(len(frames), 40))]
        with connect(self.ingestors[ingestor]) as db, db.transaction():
            row = db.execute("SELECT coalesce(max(batch), 0) + 1 FROM load_batches").fetchone()
            assert row is not None
            for channel, events in decoded.items():
                for at, event in zip(received, events, strict=False):
                    full = event | {"received_at": at, "batch": row[0], "epoch": epoch, "stream_id": 1}
                    db.execute(
                        f"INSERT INTO {channel} ({', '.join(full)}) VALUES ({', '.join(['%s'] * len(full))})",
                        list(full.values()),
                    )
            counts = [len(decoded.get(channel, ())) for channel in CHANNELS]
            db.execute(
                "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
                f" received_from, received_to, frames, parked, rejected, {', '.join(CHANNELS)})"
                " VALUES (1, %s, %s, 0, 0, 'v', %s, %s, 0, 0, 0, %s, %s, %s, %s, %s)",
                [row[0], f"{epoch}-000000.journal.zst", received[0], received[-1], *counts],
            )
            db.execute(
                "INSERT INTO connections VALUES (1, %s, %s, %s, %s, 'shutdown', %s) ON CONFLICT (stream_id, epoch)"
                " DO UPDATE SET batch = excluded.batch",
                [epoch, received[0], received[-1], received[-1], row[0]],
            )

    def decode(self, ingestor: str, epoch: int, frames: list[int], version: int) -> None:
        """Version 0 drops every third trade, adds one that never was, and misreads amounts; 1 only adds; 2 is right."""
        trades = [
            trade(i, self.exchange, wrong=version == 0 and i % 4 == 1)
            for i in frames
            if not (version == 0 and i % 3 == 0)
        ]
        if version < 2:
            trades += [trade(i + 40, self.exchange, wrong=False) for i in frames if i % 5 == 0]
        quotes = [quote(i) for i in frames if version > 0 or i % 2] if self.exchange == "binance" else []
        half = len(trades) // 2
        self.write(ingestor, epoch, frames, {"trades": trades[:half], "quotes": quotes})
        self.write(ingestor, epoch, frames, {"trades": trades[half:]})

    def reload(self, ingestor: str, epoch: int, frames: list[int], version: int) -> None:
        """As ``cryptopip reload`` does: in one transaction, the new batches in the place of the epoch's old ones."""
        with connect(self.ingestors[ingestor]) as db:
            before = db.execute("SELECT max(batch) FROM load_batches").fetchone()
            assert before is not None
            self.decode(ingestor, epoch, frames, version)
            db.execute(
                "UPDATE load_batches SET superseded_by = (SELECT max(batch) FROM load_batches)"
                " WHERE batch <= %s AND superseded_by IS NULL AND segment LIKE %s",
                [before[0], f"{epoch}-%"],
            )
            db.execute(
                "UPDATE load_batches SET reload_to = (SELECT max(batch) FROM load_batches) WHERE batch > %s", before
            )

    def sync(self, config: Sync | None = None, **options: Any) -> SyncReport:
        report = sync_once(config or self.config, **options)
        assert report.failed == []
        return report

    def history(self) -> dict[str, Counter[tuple[str, ...]]]:
        out = {}
        with connect(self.datalake) as db:
            for channel, columns in (
                ("trades", "time, trade_id, is_buy, price, amount, ordinal"),
                ("quotes", "update_id, bid_price"),
            ):
                out[channel] = Counter(tuple(map(str, row)) for row in db.execute(f"SELECT {columns} FROM {channel}"))
        return out

    def pending(self) -> list[tuple[Any, ...]]:
        with connect(self.datalake) as db:
            return db.execute(
                "SELECT stream, epoch, waits_for FROM supersessions WHERE finished_at IS NULL ORDER BY 1, 2"
            ).fetchall()

    def removed(self) -> list[int]:
        with connect(self.datalake) as db:
            return [row[0] for row in db.execute("SELECT removed FROM supersessions ORDER BY stream, epoch")]

    def assert_digests_fit(self) -> None:
        kept = {(d.key, d.content) for d in DigestSource(self.datalake).digests(Window()) if d.rows}
        assert kept == {(d.key, d.content) for d in DigestSource(f"rows:{self.datalake}").digests(Window())}

    def assert_as_if_pulled_at_once(self) -> None:
        """A new datalake that never saw what was superseded has the same rows, every digit."""
        history = self.history()
        self.assert_digests_fit()
        self.empty()
        self.sync()
        assert self.history() == history
        self.assert_digests_fit()


@pytest.fixture(scope="module")
def lab(server_dsn: str) -> Iterator[Lab]:
    fresh = partial(contextmanager(fresh_database), server_dsn)
    with fresh("ingestor") as first, fresh("ingestor") as second, fresh("datalake") as lake:
        yield Lab({"ing1": first, "ing2": second}, lake)


epochs = st.dictionaries(
    st.tuples(st.sampled_from(["ing1", "ing2"]), st.integers(1, 2)),
    st.tuples(st.lists(st.integers(0, 11), min_size=1, max_size=8), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(epochs, st.randoms(use_true_random=False), st.sampled_from([1, 10_000]), st.sampled_from(["binance", "mexc"]))
def test_any_order_of_loads_reloads_and_pulls_gives_what_is_in_force(
    lab: Lab,
    delivered: dict[tuple[str, int], tuple[list[int], int]],
    random: Any,
    max_weight: int,
    exchange: str,
) -> None:
    lab.clear(exchange)
    steps = [who for who, (_, reloads) in delivered.items() for _ in range(1 + reloads)]
    random.shuffle(steps)
    version: dict[tuple[str, int], int] = {}
    for who in steps:
        frames, reloads = delivered[who]
        if who not in version:
            # The last version read is the right one, so that no two ingestors contradict each other in the end.
            version[who] = 2 - reloads
            lab.decode(*who, frames, version[who])
        else:
            version[who] += 1
            lab.reload(*who, frames, version[who])
        if random.random() < 0.6:
            names = [name for name in lab.ingestors if random.random() < 0.7]
            lab.sync(lab.config_of(*names), max_weight=max_weight)
    assert set(version.values()) == {2}
    lab.sync(max_weight=max_weight)
    lab.sync(max_weight=max_weight)
    assert lab.pending() == []
    lab.assert_as_if_pulled_at_once()


def test_a_row_that_another_ingestor_has_stays_and_goes_with_the_last_who_had_it(lab: Lab) -> None:
    lab.clear()
    for name in lab.ingestors:
        lab.decode(name, 1, [0, 1, 2], 1)
    lab.sync()

    def ghost() -> int:
        """How often what version 1 adds to frame 0 is there."""
        return sum(row[1] == "140" for row in lab.history()["trades"])

    assert ghost() == 1
    lab.reload("ing1", 1, [0, 1, 2], 2)
    lab.sync()
    assert ghost() == 1
    assert lab.pending() == []
    assert lab.removed() == [0]
    lab.reload("ing2", 1, [0, 1, 2], 2)
    lab.sync()
    assert ghost() == 0
    assert lab.removed() == [0, 1]
    lab.assert_digests_fit()
    assert lab.sync().pulled == 0


def test_a_copy_that_a_wrong_row_kept_out_comes_in(lab: Lab) -> None:
    lab.clear()
    lab.decode("ing1", 1, [1], 0)
    lab.sync()
    event = trade(1, "binance", wrong=False) | {"price": Decimal("5.00")}
    lab.write("ing2", 1, [1], {"trades": [event]})
    assert lab.sync().conflicts == 1
    lab.reload("ing1", 1, [2], 2)  # by the newer decoder it had never received that trade
    lab.sync()
    prices = sorted(row[3] for row in lab.history()["trades"])
    assert prices == ["5.00", "60000.10"]
    with connect(lab.datalake) as db:
        assert db.execute("SELECT count(*) FROM sync_conflicts").fetchone() == (0,)
    lab.assert_digests_fit()


def test_a_frame_loaded_after_a_reload_counts_beside_its_equals_in_force(lab: Lab) -> None:
    lab.clear("mexc")
    lab.decode("ing1", 1, [2], 1)
    lab.sync()
    lab.reload("ing1", 1, [2], 2)
    lab.write("ing1", 1, [2], {"trades": [trade(2, "mexc", wrong=False)]})  # parked until now
    lab.sync()
    assert sorted(row[5] for row in lab.history()["trades"]) == ["1", "2"]
    lab.assert_as_if_pulled_at_once()


def test_rows_stay_as_long_as_one_who_may_have_them_cannot_be_asked(lab: Lab) -> None:
    lab.clear()
    lab.decode("ing1", 1, [0, 1, 3], 0)
    lab.decode("ing2", 2, [7], 2)
    lab.sync()
    before = lab.history()
    lab.reload("ing1", 1, [0, 1, 3], 2)
    lab.sync(lab.config_of("ing1"))
    assert lab.pending() == [("ing1/x", 1, ["ing2/x epoch 2"])]
    assert before["trades"] - lab.history()["trades"] == Counter()
    assert lab.history()["trades"].total() > before["trades"].total(), "what is new comes at once"
    lab.sync(lab.config_of("ing1"))
    assert len(lab.pending()) == 1
    lab.sync()
    assert lab.pending() == []
    lab.assert_as_if_pulled_at_once()


def test_rows_stay_where_another_has_pruned_what_may_be_its_copies(lab: Lab) -> None:
    lab.clear()
    lab.decode("ing1", 1, [0], 1)
    lab.decode("ing2", 1, [0], 1)
    lab.sync()
    with connect(lab.ingestors["ing2"]) as db:
        db.execute("DELETE FROM trades")
    before = lab.history()
    lab.reload("ing1", 1, [0], 2)
    lab.sync()
    assert lab.history() == before
    assert lab.pending() == [("ing1/x", 1, ["ing2/x: rows of trades are pruned"])]


def test_coverage_of_an_epoch_is_replaced(lab: Lab) -> None:
    lab.clear()
    lab.decode("ing1", 1, [0], 0)
    insert = (
        "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, ended_at, proof, ended_by, batch)"
        " VALUES (1, 1, 1, 'trades', %s, %s, 'heartbeat', 'shutdown', %s)"
    )
    with connect(lab.ingestors["ing1"]) as db:
        for n in range(2):
            db.execute(insert, [T0 + timedelta(seconds=n), T0 + timedelta(seconds=n, milliseconds=500), 1])
        lab.sync()
        lab.reload("ing1", 1, [0], 2)
        db.execute("DELETE FROM coverage")
        db.execute(insert, [T0, T0 + timedelta(seconds=9), 4])
    lab.sync()
    with connect(lab.datalake) as db:
        assert db.execute("SELECT started_at, ended_at FROM coverage").fetchall() == [(T0, T0 + timedelta(seconds=9))]
