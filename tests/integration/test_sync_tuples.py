"""Sync of events without ids: as many equal ones as a connection received, whatever was sent twice, cut or lost."""

from __future__ import annotations

import hashlib
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
from collectors.sync import SyncReport, sync_once
from tests.conftest import fresh_database

pytestmark = pytest.mark.database
T0 = datetime(2026, 11, 20, 10, 59, 59, tzinfo=UTC)
COUNTED = ("trades", "quotes", "book_events", "derivatives", "liquidations")


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, client_encoding="UTF8")


def trade(i: int) -> dict[str, Any]:
    return {
        "time": T0 + timedelta(milliseconds=700 * (i // 2)), "is_buy": [True, None][i % 2],
        "price": Decimal("60000.10"), "amount": Decimal(f"0.{i // 4 + 1}0"),
    }  # fmt: skip


def quote(i: int) -> dict[str, Any]:
    return {
        "time": T0 + timedelta(milliseconds=700 * i), "bid_price": Decimal("60000.10"), "bid_amount": Decimal(i + 1),
        "ask_price": None, "ask_amount": None,
    }  # fmt: skip


def derivative(i: int) -> dict[str, Any]:
    return {
        "time": T0 + timedelta(milliseconds=700 * i), "funding_rate": [None, Decimal("0.00010")][i % 2],
        "mark_price": Decimal("60000.10"),
    }  # fmt: skip


MAKE = {"trades": trade, "quotes": quote, "derivatives": derivative}
Piece = tuple[int, list[int]]
"""Seconds after T0 at which a batch was received, and the numbers of its events."""


class Lab:
    """Two ingestors of MEXC, whose trades, quotes and derivatives have no ids, and a datalake."""

    def __init__(self, ingestors: dict[str, str], datalake: str) -> None:
        self.ingestors = ingestors
        self.datalake = datalake
        self.last: Counter[str] = Counter()
        self.config = Sync(
            make_conninfo(datalake, options="-c role=cryptopip_sync_writer"),
            [
                Source(name, make_conninfo(dsn, options="-c role=cryptopip_sync_reader"))
                for name, dsn in ingestors.items()
            ],
        )

    def clear(self, exchange: str = "mexc") -> None:
        self.last.clear()
        for name, dsn in self.ingestors.items():
            with connect(dsn) as db:
                db.execute(
                    f"TRUNCATE instruments, streams, load_batches, {', '.join(COUNTED)} RESTART IDENTITY CASCADE"
                )
                db.execute("UPDATE incarnation SET id = gen_random_uuid()")
                db.execute(
                    "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
                    " VALUES (1, %s, 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')",
                    [exchange],
                )
                db.execute("INSERT INTO streams (ingestor, name, exchange) VALUES (%s, 'x', %s)", [name, exchange])
        with connect(self.datalake) as db:
            db.execute(
                f"TRUNCATE recording, instruments, sources, watermarks, digests, sync_conflicts, {', '.join(COUNTED)}"
                " CASCADE"
            )

    def load(self, ingestor: str, epoch: int, after: float, rows: dict[str, list[dict[str, Any]]]) -> None:
        """One load batch, received ``after`` T0 (seconds), a microsecond between rows."""
        self.last[ingestor] += 1
        batch = self.last[ingestor]
        received = T0 + timedelta(seconds=after)
        with connect(self.ingestors[ingestor]) as db, db.transaction():
            for channel, events in rows.items():
                for place, event in enumerate(events):
                    row = event | {
                        "instrument_id": 1, "received_at": received + timedelta(microseconds=place), "batch": batch,
                        "epoch": epoch, "stream_id": 1,
                    }  # fmt: skip
                    db.execute(
                        f"INSERT INTO {channel} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
                        list(row.values()),
                    )
            counts = [len(rows.get(channel, ())) for channel in COUNTED]
            until = received + timedelta(microseconds=max(counts))
            db.execute(
                "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
                f" received_from, received_to, frames, parked, rejected, {', '.join(COUNTED)})"
                " VALUES (1, %s, 's', 0, 0, 'v', %s, %s, 0, 0, 0, %s, %s, %s, %s, %s)",
                [batch, received, until, *counts],
            )

    def numbers(self, ingestor: str, epoch: int, piece: Piece) -> None:
        after, numbers = piece
        self.load(ingestor, epoch, after, {channel: [make(i) for i in numbers] for channel, make in MAKE.items()})

    def sync(self, **options: Any) -> SyncReport:
        report = sync_once(self.config, **options)
        assert report.failed == []
        return report

    def rows(self, channel: str) -> Counter[tuple[str, ...]]:
        columns = ", ".join(MAKE[channel](0))
        with connect(self.datalake) as db:
            return Counter(tuple(map(str, row)) for row in db.execute(f"SELECT {columns} FROM {channel}"))

    def hashes(self) -> tuple[int, int]:
        """Rows and hash of the trades' digests."""
        with connect(self.datalake) as db:
            row = db.execute("SELECT sum(rows), sum(hash) FROM digests WHERE channel = 'trades'").fetchone()
        assert row is not None
        return int(row[0] or 0), int(row[1] or 0)


@pytest.fixture(scope="module")
def lab(server_dsn: str) -> Iterator[Lab]:
    fresh = partial(contextmanager(fresh_database), server_dsn)
    with fresh("ingestor") as first, fresh("ingestor") as second, fresh("datalake") as lake:
        yield Lab({"ing1": first, "ing2": second}, lake)


def hash_of(event: dict[str, Any]) -> int:
    side = {True: "buy", None: ""}[event["is_buy"]]
    us = (event["time"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    text = f"trades|1|{us}||{side}|{event['price']}|{event['amount']}||"
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:8], signed=True)


connections = st.dictionaries(
    st.tuples(st.sampled_from(["ing1", "ing2"]), st.integers(1, 2)),
    st.lists(st.tuples(st.integers(0, 12), st.lists(st.integers(0, 7), max_size=5)), min_size=1, max_size=4),
    max_size=4,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(connections, st.randoms(use_true_random=False), st.sampled_from([1, 30, 10_000]))
def test_as_many_equal_events_stay_as_any_one_connection_received(
    lab: Lab, delivered: dict[tuple[str, int], list[Piece]], random: Any, max_weight: int
) -> None:
    lab.clear()
    order = [who for who, pieces in delivered.items() for _ in pieces]
    random.shuffle(order)  # the batches of a connection come in its order, those of different ones in any
    waiting = {who: iter(pieces) for who, pieces in delivered.items()}
    for who in order:
        lab.numbers(*who, next(waiting[who]))
        if random.random() < 0.4:
            lab.sync(max_weight=max_weight)
    lab.sync(max_weight=max_weight)
    received = [Counter(i for _, numbers in pieces for i in numbers) for pieces in delivered.values()]
    most: Counter[int] = Counter()
    for counted in received:
        most |= counted  # the greater of each
    for channel, make in MAKE.items():
        expected = Counter(tuple(map(str, make(i).values())) for i in most.elements())
        assert lab.rows(channel) == expected
    assert lab.hashes() == (most.total(), sum(hash_of(trade(i)) for i in most.elements()))
    assert lab.sync().pulled == 0


def test_a_trade_sent_again_long_after_is_the_same_and_one_sent_soon_after_another(lab: Lab) -> None:
    lab.clear()
    lab.numbers("ing1", 1, (0, [1, 1]))
    lab.numbers("ing1", 1, (59, [1]))
    lab.sync()
    lab.numbers("ing1", 1, (500, [1, 1]))
    report = lab.sync()
    assert report.inserted == 0
    assert lab.rows("trades").total() == 3


def test_an_ingestor_with_a_new_database_doubles_nothing(lab: Lab) -> None:
    lab.clear()
    lab.numbers("ing1", 1, (0, [1, 1, 2]))
    lab.sync()
    with connect(lab.ingestors["ing1"]) as db:
        db.execute("UPDATE incarnation SET id = gen_random_uuid()")
    assert lab.sync().inserted == 0
    assert lab.rows("trades").total() == 3


def test_a_frame_loaded_late_counts_beside_its_equal(lab: Lab) -> None:
    lab.clear()
    lab.numbers("ing1", 1, (10, [1]))
    lab.sync()
    lab.numbers("ing1", 1, (5, [1]))  # parked until now
    lab.sync()
    assert lab.rows("trades").total() == 2


def test_liquidations_without_ids_are_merged_by_content(lab: Lab) -> None:
    lab.clear("bybit")
    event = {"time": T0, "is_buy": True, "price": Decimal("1.50"), "amount": Decimal(3)}
    lab.load("ing1", 1, 0, {"liquidations": [event, event]})
    lab.load("ing2", 1, 3, {"liquidations": [event, event, event | {"is_buy": False}]})
    assert lab.sync().inserted == 3


def test_an_update_that_repeats_the_last_id_is_another_than_the_one_that_had_it(lab: Lab) -> None:
    lab.clear("okx")

    def update(previous: int, last: int, *prices: str) -> dict[str, Any]:
        levels = {"bid_prices": list(map(Decimal, prices)), "bid_amounts": [Decimal(1)] * len(prices)}
        empty: dict[str, list[Decimal]] = {"ask_prices": [], "ask_amounts": []}
        return {"time": T0, "previous_id": previous, "last_id": last, "is_snapshot": False} | levels | empty

    events = [update(100, 105, "1.50"), update(105, 105), update(105, 109, "1.60")]
    lab.load("ing1", 1, 0, {"book_events": events[:2]})
    lab.load("ing2", 1, 2, {"book_events": events})
    report = lab.sync()
    assert (report.inserted, report.conflicts) == (3, 0)
    with connect(lab.datalake) as db:
        rows = db.execute("SELECT previous_id, last_id FROM book_events ORDER BY 2, 1").fetchall()
    assert rows == [(100, 105), (105, 105), (105, 109)]


@pytest.mark.parametrize("channel", ["derivatives", "liquidations"])
def test_rows_that_a_batch_hides_are_found_in_every_channel(lab: Lab, channel: str) -> None:
    lab.clear("bybit")
    event = {"time": T0, "is_buy": True, "price": Decimal("1.50"), "amount": Decimal(3)}
    lab.load("ing1", 1, 0, {"liquidations": [event], "derivatives": [derivative(1)]})
    with connect(lab.ingestors["ing1"]) as db:
        db.execute(f"UPDATE load_batches SET {channel} = 0")
    error = sync_once(lab.config).failed[0].error
    assert f"say 0 {channel} and the table has 1" in (error or "")
