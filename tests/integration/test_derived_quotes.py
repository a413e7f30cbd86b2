"""Best bid and ask of exchanges that send none: those of the exchange's own book, and nothing where it is not known."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from collectors.derived.books import derive_books
from collectors.digests import Source as DigestSource
from collectors.digests import Window
from tests.conftest import fresh_database
from tests.integration.test_derived_books import (
    EVENTS,
    TRUTH,
    Connection,
    Event,
    Life,
    arrive,
    clear,
    from_scratch,
    made,
    moment,
)

pytestmark = pytest.mark.database
Best = tuple[Any, ...]


@pytest.fixture(scope="module")
def lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def lake(lake_dsn: str) -> Iterator[Connection]:
    """As the login that sync and this have on a host."""
    writer = make_conninfo(lake_dsn, options="-c role=cryptopip_sync_writer -c timezone=Asia/Kolkata")
    with psycopg.connect(writer, autocommit=True) as connection:
        yield connection


def without_quotes(lake: Connection, exchange: str, identity: str) -> None:
    clear(lake, exchange, identity)
    lake.execute("SET ROLE postgres; DELETE FROM identities WHERE channel = 'quotes'; SET ROLE cryptopip_sync_writer")


def best(n: int) -> Best:
    """Of the true book after an update."""
    bids, asks = TRUTH.books[n]
    bid, ask = max(bids), min(asks)
    return bid, bids[bid], ask, asks[ask]


def changes(numbers: range, before: Best | None = None) -> list[tuple[Any, ...]]:
    """The true quotes of these updates, where they differ from the one before."""
    quotes = []
    for n in numbers:
        if best(n) != before:
            quotes.append((moment(n), *best(n)))
        before = best(n)
    return quotes


def quotes(lake: Connection) -> list[tuple[Any, ...]]:
    return lake.execute(
        "SELECT time, bid_price, bid_amount, ask_price, ask_amount, ingestor, epoch, update_id, received_at FROM quotes"
        " WHERE is_derived AND instrument_id = 1 ORDER BY time, received_at"
    ).fetchall()


def assert_from_scratch(lake: Connection) -> None:
    """A run that knows of nothing makes the same."""
    found = quotes(lake)
    with lake.transaction(force_rollback=True):
        lake.execute("DELETE FROM quotes")
        lake.execute("DELETE FROM book_snapshots")
        lake.execute("INSERT INTO book_hours SELECT instrument_id, hour FROM digests WHERE channel = 'book_events'")
        derive_books(lake)
        assert quotes(lake) == found
    assert from_scratch(lake) == made(lake)


@pytest.mark.parametrize("seed", range(4))
def test_quotes_of_a_chain_are_those_of_the_true_book_and_none_is_told_behind_a_hole(
    lake: Connection, seed: int
) -> None:
    without_quotes(lake, "bitvavo", "chain")
    chance = Random(seed)
    late = Event(17, 18)
    events = [Event(None, 0), Event(None, 30), *(Event(n, n) for n in range(1, EVENTS + 1) if n not in (17, 18, 25))]
    chance.shuffle(events)
    while events:
        size = chance.randrange(1, 15)
        arrive(lake, events[:size])
        events = events[size:]
        if chance.random() < 0.5:
            derive_books(lake)
    derive_books(lake)
    assert [row[:5] for row in quotes(lake)] == changes(range(17)) + changes(range(30, EVENTS + 1))
    assert_from_scratch(lake)
    arrive(lake, [late])
    derive_books(lake)
    told = [*changes(range(17)), *changes(range(18, 25), best(16)), *changes(range(30, EVENTS + 1))]
    assert [row[:5] for row in quotes(lake)] == told, "late updates mend it, up to the next hole"
    assert {row[7] for row in quotes(lake)} <= set(range(EVENTS + 1))
    assert_from_scratch(lake)
    names = [digest.channel for digest in DigestSource(f"rows:{lake.info.dsn}").digests(Window())]
    assert set(names) == {"book_events"}, "what is derived is in no digest"


@pytest.mark.parametrize("seed", range(4))
def test_quotes_of_connections_are_those_of_the_leading_one_while_it_listens(lake: Connection, seed: int) -> None:
    without_quotes(lake, "coinbaseexchange", "epoch")
    chance = Random(seed)
    lives = [Life(1, "ing1", 0, 17), Life(2, "ing2", 10, 25), Life(3, "ing1", 30, EVENTS)]
    while untold := [life for life in lives if life.told < len(life.events)]:
        chance.choice(untold).tell(lake, chance.randrange(1, 15))
        if chance.random() < 0.5:
            derive_books(lake)
    derive_books(lake)
    # Whoever takes the lead tells what its first event of then leaves.
    told = [*changes(range(18)), *changes(range(18, 26)), *changes(range(30, EVENTS + 1))]
    assert [row[:5] for row in quotes(lake)] == told
    assert {(row[5], row[6]) for row in quotes(lake) if row[0] > moment(17)} == {("ing2", 2), ("ing1", 3)}
    assert_from_scratch(lake)


def test_an_exchange_that_sends_quotes_has_none_derived(lake: Connection) -> None:
    clear(lake, "bitvavo", "chain")
    arrive(lake, [Event(None, 0), *(Event(n, n) for n in range(1, 9))])
    assert derive_books(lake).quotes == 0
    assert quotes(lake) == []
