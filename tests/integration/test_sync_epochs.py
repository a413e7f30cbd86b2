"""Events that belong to their connection: all are kept, one connection leads, and the book is the exchange's."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from collectors.config import Source, Sync
from collectors.digests import Source as DigestSource
from collectors.digests import Window
from collectors.sync import SyncReport, sync_once
from tests.conftest import fresh_database

pytestmark = pytest.mark.database
T0 = datetime(2026, 11, 20, 10, 59, 57, tzinfo=UTC)
EVENTS = 60
LAG = {"ing1": timedelta(milliseconds=20), "ing2": timedelta(milliseconds=35)}
Book = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]
Life = tuple[str, int, int]
"""Ingestor, and the updates between which a connection of it stood: a snapshot behind the first, all up to the last."""


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, client_encoding="UTF8")


def moment(n: int) -> datetime:
    return T0 + timedelta(milliseconds=100 * n)


class Truth:
    """The exchange's book: each update sets one bid and one ask twice, in one frame of two events."""

    def __init__(self) -> None:
        rng = random.Random(4)
        book: Book = (
            {Decimal(100 - n): Decimal(1) for n in range(5)},
            {Decimal(101 + n): Decimal(1) for n in range(5)},
        )
        self.frames: list[list[tuple[tuple[Decimal, Decimal], tuple[Decimal, Decimal]]]] = [[]]
        self.books: list[Book] = [(dict(book[0]), dict(book[1]))]
        for _ in range(EVENTS):
            bid, ask = Decimal(100 - rng.randrange(8)), Decimal(101 + rng.randrange(8))
            frame = [((bid, Decimal(rng.randrange(3))), (ask, Decimal(rng.randrange(3)))) for _ in range(2)]
            self.frames.append(frame)
            for changes in frame:
                for side, (price, amount) in zip(book, changes, strict=True):
                    side[price] = amount
                    if not amount:
                        del side[price]
            self.books.append((dict(book[0]), dict(book[1])))


TRUTH = Truth()
PHASES = [Phase.explicit, Phase.generate]  # shrinking would take databases half an hour


class Lab:
    def __init__(self, ingestors: dict[str, str], datalake: str) -> None:
        self.ingestors = ingestors
        self.datalake = datalake
        self.config = Sync(datalake, [Source(name, dsn) for name, dsn in ingestors.items()])

    def clear(self, exchange: str = "coinbaseexchange") -> None:
        for name, dsn in self.ingestors.items():
            with connect(dsn) as db:
                db.execute(
                    "TRUNCATE instruments, streams, load_batches, connections, coverage, quotes, book_events,"
                    " derivatives RESTART IDENTITY CASCADE"
                )
                db.execute("UPDATE incarnation SET id = gen_random_uuid()")
                db.execute(
                    "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
                    " VALUES (1, %s, 'BTC/USD', 'BTC-USD', 'spot', 'BTC', 'USD', '2020-01-01')",
                    [exchange],
                )
                db.execute("INSERT INTO streams (ingestor, name, exchange) VALUES (%s, 'x', %s)", [name, exchange])
        self.empty()

    def empty(self) -> None:
        with connect(self.datalake) as db:
            db.execute(
                "TRUNCATE instruments, sources, watermarks, connections, coverage, digests, sync_conflicts, quotes,"
                " book_events, derivatives, supersessions, identities CASCADE"
            )

    def live(self, life: Life, epoch: int) -> None:
        """Write a connection's load batches: a snapshot, then some updates each."""
        ingestor, first, last = life
        lag = LAG[ingestor]
        rows = [(moment(first) + lag, moment(first), True, TRUTH.books[first])]
        rows += [
            (moment(n) + lag, moment(n), False, ({bid[0]: bid[1]}, {ask[0]: ask[1]}))
            for n in range(first + 1, last + 1)
            for bid, ask in TRUTH.frames[n]
        ]
        with connect(self.ingestors[ingestor]) as db:
            found = db.execute("SELECT coalesce(max(batch), 0) FROM load_batches").fetchone()
            assert found is not None
            batch = found[0]
            for start in range(0, len(rows), 10):
                batch += 1
                piece = rows[start : start + 10]
                for received, time, is_snapshot, (bids, asks) in piece:
                    sides = [list(part) for side in (bids, asks) for part in (side.keys(), side.values())]
                    db.execute(
                        "INSERT INTO book_events (received_at, time, batch, epoch, stream_id, instrument_id,"
                        " is_snapshot, bid_prices, bid_amounts, ask_prices, ask_amounts) VALUES"
                        " (%s, %s, %s, %s, 1, 1, %s, %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[])",
                        [received, time, batch, epoch, is_snapshot, *sides],
                    )
                db.execute(
                    "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
                    " received_from, received_to, frames, parked, rejected, trades, quotes, book_events)"
                    " VALUES (1, %s, %s, 0, 0, 'v', %s, %s, 0, 0, 0, 0, 0, %s)",
                    [batch, f"{epoch}-000000.journal.zst", piece[0][0], piece[-1][0], len(piece)],
                )
            ends = rows[-1][0] + timedelta(milliseconds=40)
            db.execute(
                "INSERT INTO connections VALUES (1, %s, %s, %s, %s, 'disconnect', %s)",
                [epoch, rows[0][0], ends, ends, batch],
            )
            db.execute(
                "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, ended_at, proof, ended_by,"
                " batch) VALUES (1, %s, 1, 'book_events', %s, %s, 'heartbeat', 'disconnect', %s)",
                [epoch, rows[0][0], ends, batch],
            )

    def sync(self, **options: Any) -> SyncReport:
        report = sync_once(self.config, **options)
        assert (report.failed, report.conflicts) == ([], 0)
        return report

    def led(self) -> list[tuple[Any, ...]]:
        with connect(self.datalake) as db:
            return db.execute(
                "SELECT is_derived, is_snapshot, received_at, ingestor, epoch, bid_prices, bid_amounts, ask_prices,"
                " ask_amounts FROM book_events_led(1, tstzrange(%s, %s))",
                [T0 - timedelta(seconds=9), moment(EVENTS + 99)],
            ).fetchall()

    def digests(self) -> set[tuple[Any, ...]]:
        kept = {(d.key, d.content) for d in DigestSource(self.datalake).digests(Window()) if d.rows}
        assert kept == {(d.key, d.content) for d in DigestSource(f"rows:{self.datalake}").digests(Window())}
        return kept

    def book_at(self, at: datetime) -> Book | str:
        with connect(self.datalake) as db:
            rows = db.execute("SELECT unknown, side, price, amount FROM book_at(1, %s, 100)", [at]).fetchall()
        if rows and rows[0][0] is not None:
            return str(rows[0][0])
        return (
            {price: amount for _, side, price, amount in rows if side == "bid"},
            {price: amount for _, side, price, amount in rows if side == "ask"},
        )


@pytest.fixture(scope="module")
def lab(server_dsn: str) -> Iterator[Lab]:
    fresh = partial(contextmanager(fresh_database), server_dsn)
    with fresh("ingestor") as first, fresh("ingestor") as second, fresh("datalake") as lake:
        yield Lab({"ing1": first, "ing2": second}, lake)


def leader(lives: list[Life], at: datetime) -> Life | None:
    """Of those that listen the one that began first, by the definition."""
    listening = [
        (moment(first) + LAG[name], name, epoch)
        for epoch, (name, first, last) in enumerate(lives, 1)
        if moment(first) + LAG[name] <= at <= moment(last) + LAG[name] + timedelta(milliseconds=40)
    ]
    return lives[min(listening)[2] - 1] if listening else None


lifetimes = st.lists(
    st.tuples(st.sampled_from(["ing1", "ing2"]), st.integers(0, EVENTS - 5), st.integers(1, EVENTS)).map(
        lambda life: (life[0], life[1], min(life[1] + life[2], EVENTS))
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lifetimes, st.randoms(use_true_random=False), st.sampled_from([1, 40, 10_000]))
def test_the_book_is_the_exchanges_wherever_anybody_listened_and_unknown_elsewhere(
    lab: Lab, lives: list[Life], rng: Any, max_weight: int
) -> None:
    lab.clear()
    order = list(enumerate(lives, 1))
    rng.shuffle(order)
    for epoch, life in order:
        lab.live(life, epoch)
        if rng.random() < 0.5:
            lab.sync(max_weight=max_weight)
    lab.sync(max_weight=max_weight)
    for n in range(EVENTS + 1):
        at = moment(n) + timedelta(milliseconds=50)
        if leader(lives, at) is None:
            assert str(lab.book_at(at)).startswith("nobody was listening at")
        else:
            assert lab.book_at(at) == TRUTH.books[n], n
    led, digests = lab.led(), lab.digests()
    book: Book = ({}, {})
    before: tuple[str, int] | None = None
    for is_derived, is_snapshot, received, name, epoch, *sides in led:
        assert lives[epoch - 1] == leader(lives, received) or is_derived
        assert is_derived or is_snapshot or before == (name, epoch), (
            "updates of another connection without its snapshot"
        )
        before = (name, epoch)
        if is_snapshot:
            book = ({}, {})
        for side, prices, amounts in ((book[0], *sides[:2]), (book[1], *sides[2:])):
            for price, amount in zip(prices, amounts, strict=True):
                side[price] = amount
                if not amount:
                    del side[price]
        if is_derived:
            n = max(n for n in range(EVENTS + 1) if moment(n) + LAG[name] <= received)
            assert book == TRUTH.books[min(n, lives[epoch - 1][2])]
    assert book == TRUTH.books[max(lives, key=lambda life: moment(life[2]) + LAG[life[0]])[2]]
    lab.empty()
    assert lab.sync().inserted == sum(1 + 2 * (last - first) for _, first, last in lives)
    assert (lab.led(), lab.digests()) == (led, digests)


def test_a_venue_that_keeps_few_levels_is_believed_no_further(lab: Lab) -> None:
    lab.clear("kraken")
    with connect(lab.ingestors["ing1"]) as db:
        for n, (is_snapshot, prices) in enumerate([(True, range(91, 101)), (False, range(101, 103))]):
            db.execute(
                "INSERT INTO book_events (received_at, time, batch, epoch, stream_id, instrument_id, is_snapshot,"
                " bid_prices, bid_amounts, ask_prices, ask_amounts)"
                " VALUES (%s, %s, 1, 1, 1, 1, %s, %s::numeric[], %s::numeric[], '{}', '{}')",
                [moment(n), moment(n), is_snapshot, list(prices), [1] * len(prices)],
            )
        db.execute(
            "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
            " received_from, received_to, frames, parked, rejected, trades, quotes, book_events)"
            " VALUES (1, 1, 's', 0, 0, 'v', %s, %s, 0, 0, 0, 0, 0, 2)",
            [moment(0), moment(1)],
        )
        db.execute("INSERT INTO connections VALUES (1, 1, %s, %s, NULL, NULL, 1)", [moment(0), moment(9)])
        db.execute(
            "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, proof, batch)"
            " VALUES (1, 1, 1, 'book_events', %s, 'heartbeat', 1)",
            [moment(0)],
        )
    lab.sync()
    with connect(lab.datalake) as db:
        assert db.execute("UPDATE identities SET depth = 10 WHERE exchange = 'kraken' AND depth = 1000").rowcount == 1
        rows = db.execute("SELECT price, bid_horizon FROM book_at(1, %s, 100)", [moment(2)]).fetchall()
    assert rows == [(price, 93) for price in range(102, 92, -1)]


def test_the_digest_text_names_the_connection(lab: Lab) -> None:
    lab.clear()
    lab.live(("ing1", 3, 3), 7)
    lab.sync()
    bids, asks = TRUTH.books[3]
    arrays = "|".join("{" + ",".join(map(str, part)) + "}" for side in (bids, asks) for part in (side, side.values()))
    micros = (moment(3) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    text = f"book_events|1|snapshot||{'|'}{arrays}|{micros}|ing1|7"
    with connect(lab.datalake) as db:
        row = db.execute("SELECT hash::bigint FROM digests").fetchone()
    assert row == (int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "big", signed=True),)


def test_the_same_connection_from_a_new_database_doubles_nothing(lab: Lab) -> None:
    lab.clear()
    lab.live(("ing1", 0, 9), 1)
    lab.sync()
    with connect(lab.ingestors["ing1"]) as db:
        db.execute("UPDATE incarnation SET id = gen_random_uuid()")
    assert lab.sync().inserted == 0


@pytest.mark.parametrize(("exchange", "channel"), [("kraken", "quotes"), ("hyperliquid", "derivatives")])
def test_single_events_of_every_connection_are_kept_and_one_leads(lab: Lab, exchange: str, channel: str) -> None:
    lab.clear(exchange)
    for name in lab.ingestors:
        with connect(lab.ingestors[name]) as db:
            at = T0 + LAG[name]
            value = "bid_price" if channel == "quotes" else "mark_price"
            db.execute(
                f"INSERT INTO {channel} (received_at, batch, epoch, stream_id, instrument_id, {value})"
                " SELECT %s + n * interval '1 s', 1, 5, 1, 1, n FROM generate_series(0, 3) AS n",
                [at],
            )
            db.execute(
                "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
                " received_from, received_to, frames, parked, rejected, trades, quotes, book_events, derivatives)"
                " VALUES (1, 1, 's', 0, 0, 'v', %s, %s, 0, 0, 0, 0, %s, 0, %s)",
                [at, at + timedelta(seconds=3), 4 * (channel == "quotes"), 4 * (channel == "derivatives")],
            )
            db.execute("INSERT INTO connections VALUES (1, 5, %s, %s, NULL, NULL, 1)", [at, at + timedelta(seconds=9)])
            db.execute(
                "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, proof, batch)"
                " VALUES (1, 5, 1, %s, %s, 'heartbeat', 1)",
                [channel, at],
            )
    assert lab.sync().inserted == 8
    with connect(lab.datalake) as db:
        rows = db.execute(
            f"SELECT ingestor, {value} FROM {channel}_led(1, tstzrange(%s, %s))", [T0, T0 + timedelta(seconds=60)]
        ).fetchall()
        assert rows == [("ing1", n) for n in range(4)]
        assert db.execute(
            "SELECT identity FROM identities WHERE exchange = %s AND channel = %s", [exchange, channel]
        ).fetchall() == [("epoch",)]
    lab.digests()
