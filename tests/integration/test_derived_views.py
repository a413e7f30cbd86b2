"""The views in other programs' columns, and the example queries, asked with no more rights than an analyst has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from collectors.derived import derive, derive_books
from collectors.sync.channels import TRADES
from tests.conftest import fresh_database

pytestmark = pytest.mark.database

EXAMPLES = (Path(__file__).resolve().parents[2] / "collectors" / "derived" / "examples.sql").read_text()
QUERIES = dict(part.split("\n", 1) for part in EXAMPLES.split("-- name: ")[1:])
T0 = datetime(2026, 11, 1, 10, 30, tzinfo=UTC)
MICROSECONDS = int(T0.timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def reader(server_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A lake with one trade a second for a minute, a quote and a book, seen as an analyst sees it."""
    for dsn in fresh_database(server_dsn, "datalake"):
        with psycopg.connect(dsn, autocommit=True) as admin:
            fill(admin)
            derive(admin)
            derive_books(admin)
        with psycopg.connect(make_conninfo(dsn, options="-c role=cryptopip_reader"), autocommit=True) as connection:
            yield connection


def fill(admin: psycopg.Connection[Any]) -> None:
    admin.execute(
        "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
        " VALUES (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')"
    )
    admin.execute(
        "INSERT INTO trades SELECT %(t)s + n * INTERVAL '1 s', %(t)s + n * INTERVAL '1.25 s', 1, 1, n %% 3 = 0,"
        " n::text, 100 + n, 0.5, NULL, NULL, 'ing1' FROM generate_series(0, 59) AS n",
        {"t": T0},
    )
    admin.execute(
        "INSERT INTO digests SELECT instrument_id, 'trades', time_bucket('1 hour', time), count(*),"
        f" sum(event_hash({TRADES.text})) FROM trades AS t GROUP BY 1, 3"
    )
    admin.execute(
        "WITH source AS (INSERT INTO sources VALUES (gen_random_uuid(), 'ing1') RETURNING incarnation)"
        " INSERT INTO coverage SELECT incarnation, 1, 's', 'ing1', 1, 1, 'book_events', %(t)s, "
        " %(t)s + INTERVAL '5 min', NULL, NULL, NULL, NULL, 'sequence', 'shutdown', 1 FROM source",
        {"t": T0},
    )
    admin.execute("INSERT INTO quotes VALUES (%(t)s, %(t)s, 1, 7, 1, 99.5, 1, 100.5, 2, 'ing1')", {"t": T0})
    admin.execute(
        "INSERT INTO book_events VALUES"
        " (%(t)s, %(t)s, 1, NULL, 10, NULL, 1, true, '{99.5, 99}', '{1, 2}', '{100.5, 101}', '{3, 4}', 'ing1'),"
        " (%(t)s + INTERVAL '1 s', %(t)s, 1, 11, 11, NULL, 1, false, '{99.5}', '{0}', '{}', '{}', 'ing1'),"
        " (%(t)s + INTERVAL '1 min', %(t)s, 1, 12, 12, NULL, 1, false, '{98}', '{1}', '{}', '{}', 'ing1')",
        {"t": T0},
    )
    admin.execute(
        "INSERT INTO digests VALUES (1, 'book_events', time_bucket('1 hour', %s), 3, 0)",
        [T0],
    )
    admin.execute(
        "INSERT INTO derivatives (time, received_at, epoch, instrument_id, mark_price, funding_time, ingestor)"
        " VALUES (%(t)s, %(t)s, 1, 1, 100.25, %(t)s, 'ing1')",
        {"t": T0},
    )
    admin.execute(
        "INSERT INTO liquidations (time, received_at, epoch, instrument_id, price, amount, ingestor)"
        " VALUES (%(t)s, %(t)s, 1, 1, 90, 3, 'ing1')",
        {"t": T0},
    )


@pytest.mark.parametrize("name", QUERIES)
def test_every_example_answers(reader: psycopg.Connection[Any], name: str) -> None:
    assert reader.execute(QUERIES[name].encode()).fetchall() != []


def test_examples_answer_rightly(reader: psycopg.Connection[Any]) -> None:
    def ask(name: str) -> list[tuple[Any, ...]]:
        return reader.execute(QUERIES[name].encode()).fetchall()

    assert [row[1:] for row in ask("bars")] == [(100, 159, 100, 159, 30, 60)]
    assert ask("vwap")[0][1:] == (Decimal("129.5"), 30)
    assert [row[1] for row in ask("order_flow")[:3]] == [Decimal("0.5"), Decimal("-0.5"), Decimal("-0.5")]
    assert ask("spread")[0][2] == 100
    assert [row[1:] for row in ask("best_bid_ask")] == [(Decimal("99.5"), 1, Decimal("100.5"), 2, False)]
    assert [row[:4] for row in ask("book")] == [("bid", 1, 99, 2), ("ask", 1, Decimal("100.5"), 3), ("ask", 2, 101, 4)]
    assert [row[1:] for row in ask("books_by_the_hour")] == [(99, Decimal("100.5"), 99, 101)]
    assert len(ask("levels")) == 6
    assert len([row for row in ask("led_levels") if not row[2]]) == 6
    assert ask("lag")[0][1] == [7.375, pytest.approx(14.6, abs=0.1)]


def test_tardis_columns_are_those_of_its_files(reader: psycopg.Connection[Any]) -> None:
    at = MICROSECONDS
    first = {
        "trades": ("exchange symbol timestamp local_timestamp id side price amount",
                   ("binance", "BTCUSDT", at, at, "0", "buy", 100, Decimal("0.5"))),
        "quotes": ("exchange symbol timestamp local_timestamp ask_amount ask_price bid_price bid_amount",
                   ("binance", "BTCUSDT", at, at, 2, Decimal("100.5"), Decimal("99.5"), 1)),
        "incremental_book_l2": ("exchange symbol timestamp local_timestamp is_snapshot side price amount",
                                ("binance", "BTCUSDT", at, at, True, "bid", Decimal("99.5"), 1)),
        "derivative_ticker": ("exchange symbol timestamp local_timestamp funding_timestamp funding_rate"
                              " predicted_funding_rate open_interest last_price index_price mark_price",
                              ("binance", "BTCUSDT", at, at, at, None, None, None, None, None, Decimal("100.25"))),
        "liquidations": ("exchange symbol timestamp local_timestamp id side price amount",
                         ("binance", "BTCUSDT", at, at, None, "unknown", 90, 3)),
    }  # fmt: skip
    for view, (header, values) in first.items():
        cursor = reader.execute(f"SELECT * FROM tardis_{view} ORDER BY time LIMIT 1".encode())
        assert cursor.description is not None
        names = header.split()
        assert [column.name for column in cursor.description][: len(names)] == names
        row = cursor.fetchone()
        assert row is not None
        assert row[: len(names)] == values
