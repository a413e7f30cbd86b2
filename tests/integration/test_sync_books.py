"""The book functions of the datalake: what they tell, and that they keep silent where they cannot know."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

pytestmark = pytest.mark.database

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
Side = dict[Decimal, Decimal]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def lake(datalake_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(datalake_dsn, autocommit=True, client_encoding="UTF8") as connection:
        yield connection


def store(lake: psycopg.Connection[Any], time: datetime, first: int | None, last: int, *book: Side) -> None:
    sides = [part for side in book for part in (list(side), list(side.values()))]
    lake.execute(
        "INSERT INTO book_events (time, received_at, epoch, first_id, last_id, instrument_id, is_snapshot,"
        " bid_prices, bid_amounts, ask_prices, ask_amounts, ingestor)"
        " VALUES (%s, %s, 1, %s, %s, 1, %s, %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], 'ing1')",
        [time, time, first, last, first is None, *sides],
    )


class Truth:
    """A book that changes by one random level an update id; remembers itself at every id."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.book: tuple[Side, Side] = (
            {Decimal(1000 - n): Decimal(1) for n in range(30)},
            {Decimal(1001 + n): Decimal(1) for n in range(30)},
        )
        self.changes: dict[int, tuple[int, Decimal, Decimal]] = {}
        self.at_id: dict[int, tuple[Side, Side]] = {100: self.copy()}
        for number in range(101, 401):
            side = self.rng.randrange(2)
            price = Decimal((1000 - self.rng.randrange(40)) if side == 0 else (1001 + self.rng.randrange(40)))
            amount = Decimal(self.rng.randrange(4))
            self.changes[number] = (side, price, amount)
            self.book[side][price] = amount
            if not amount:
                del self.book[side][price]
            self.at_id[number] = self.copy()

    def copy(self) -> tuple[Side, Side]:
        return dict(self.book[0]), dict(self.book[1])

    def update(self, first: int, last: int) -> tuple[Side, Side]:
        sides: tuple[Side, Side] = ({}, {})
        for number in range(first, last + 1):
            side, price, amount = self.changes[number]
            sides[side][price] = amount
        return sides


def asked(lake: psycopg.Connection[Any], function: str, where: object) -> tuple[str | None, Side, Side]:
    rows = lake.execute(f"SELECT unknown, side, price, amount FROM {function}(1, %s, 1000)", [where]).fetchall()
    bids = {price: amount for _, side, price, amount in rows if side == "bid"}
    asks = {price: amount for _, side, price, amount in rows if side == "ask"}
    return rows[0][0], bids, asks


@pytest.mark.parametrize("seed", [1, 2])
def test_the_book_at_an_update_is_the_truth_down_to_the_snapshots_horizon(
    lake: psycopg.Connection[Any], seed: int
) -> None:
    truth = Truth(seed)
    store(lake, at(0), None, 100, *truth.at_id[100])
    ends = set()
    for _ in range(2):  # two ingestors that were sent different event boundaries
        first = 101
        while first <= 400:
            last = min(400, first + truth.rng.randrange(8))
            store(lake, at(last / 10), first, last, *truth.update(first, last))
            ends.add(last)
            first = last + 1
    for number in truth.rng.sample(sorted(ends), 20):
        unknown, bids, asks = asked(lake, "book_at_update", number)
        assert unknown is None
        assert bids == {p: a for p, a in truth.at_id[number][0].items() if p >= 971}
        assert asks == {p: a for p, a in truth.at_id[number][1].items() if p <= 1030}


def test_a_hole_shows_also_where_updates_name_only_the_id_before_them(lake: psycopg.Connection[Any]) -> None:
    truth = Truth(5)
    store(lake, at(0), None, 100, *truth.at_id[100])
    for first, last in ((101, 110), (111, 120), (131, 140)):
        store(lake, at(last / 10), first, last, *truth.update(first, last))
    # A quiet minute's message repeats the last id, and ids that fall begin anew: neither covers anything.
    store(lake, at(12.1), 121, 120, {}, {})
    lake.execute("UPDATE book_events SET previous_id = first_id - 1, first_id = NULL WHERE NOT is_snapshot")
    unknown, bids, _ = asked(lake, "book_at_update", 120)
    assert (unknown, bids) == (None, {p: a for p, a in truth.at_id[120][0].items() if p >= 971})
    assert "updates 121 to 130 after snapshot 100" in (asked(lake, "book_at_update", 140)[0] or "")
    lake.execute("UPDATE book_events SET previous_id = NULL")
    assert "updates 101 to 120 after snapshot 100" in (asked(lake, "book_at_update", 120)[0] or "")


def test_a_book_with_a_hole_or_without_snapshot_is_unknown(lake: psycopg.Connection[Any]) -> None:
    truth = Truth(3)
    store(lake, at(0), None, 100, *truth.at_id[100])
    store(lake, at(1), 101, 110, *truth.update(101, 110))
    store(lake, at(3), 121, 130, *truth.update(121, 130))
    store(lake, at(4), None, 125, *truth.at_id[125])
    assert asked(lake, "book_at_update", 99)[0] == "no snapshot at or before update 99"
    assert asked(lake, "book_at_update", 110)[0] is None
    assert "updates 111 to 124 after snapshot 100" in (asked(lake, "book_at_update", 124)[0] or "")
    assert "updates 101 to 105" in (asked(lake, "book_at_update", 105)[0] or "")  # in the middle of an event
    assert asked(lake, "book_at_update", 130)[1] == {
        p: a for p, a in truth.at_id[130][0].items() if p >= min(truth.at_id[125][0])
    }


def test_a_moment_is_known_if_the_chain_goes_on_or_somebody_listened(lake: psycopg.Connection[Any]) -> None:
    truth = Truth(4)
    assert "no book event" in (asked(lake, "book_at", at(0))[0] or "")
    store(lake, at(0), None, 100, *truth.at_id[100])
    store(lake, at(10), 101, 110, *truth.update(101, 110))
    assert asked(lake, "book_at", at(9.99))[1:] == truth.at_id[100]  # the next update proves that nothing happened
    assert "nobody was listening" in (asked(lake, "book_at", at(12))[0] or "")
    life = UUID(int=1)
    lake.execute("INSERT INTO sources (incarnation, ingestor) VALUES (%s, 'ing1')", [life])
    lake.execute(
        "INSERT INTO coverage VALUES"
        " (%s, 1, 's', 'ing1', 1, 1, 'book_events', %s, %s, NULL, NULL, NULL, NULL, 'sequence', 'crash', 1)",
        [life, at(0), at(15)],
    )
    assert asked(lake, "book_at", at(12))[0] is None
    assert "nobody was listening" in (asked(lake, "book_at", at(16))[0] or "")


def test_levels_come_one_a_row(lake: psycopg.Connection[Any]) -> None:
    store(
        lake,
        at(0),
        101,
        102,
        {Decimal("1.10"): Decimal("2.0")},
        {Decimal("1.20"): Decimal(0), Decimal("1.30"): Decimal(5)},
    )
    rows = lake.execute(
        "SELECT side, price::text, amount::text, is_snapshot FROM book_levels ORDER BY price"
    ).fetchall()
    assert rows == [("bid", "1.10", "2.0", False), ("ask", "1.20", "0", False), ("ask", "1.30", "5", False)]
