"""Digests of real datalakes: what is kept, what the rows come to, and what a program of its own computes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import fresh_database

pytestmark = pytest.mark.database
ROOT = Path(__file__).resolve().parents[2]
INSTRUMENT = """
INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)
VALUES (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')
"""
TRADES = """
INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, is_buy, price, amount, ingestor)
SELECT t, t, 1, n::text, 1, n % 2 = 0, 100.10 + n, 0.5000, 'ing1'
FROM generate_series(1, 4) AS n, LATERAL (SELECT timestamptz '2026-11-01 10:59:58+00' + n * interval '1 s' AS t) AS at
"""
QUOTE = """
INSERT INTO quotes (time, received_at, epoch, update_id, instrument_id, bid_price, bid_amount, ingestor)
VALUES ('2026-11-01 10:00:00+00', '2026-11-01 10:00:00+00', 1, 7, 1, 1.50, 2, 'ing1')
"""


@pytest.fixture
def other_lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


def fill(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(INSTRUMENT)
        connection.execute(TRADES.encode())
        connection.execute(QUOTE.encode())


def change(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection:
        assert connection.execute(statement.encode()).rowcount == 1


def digest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collectors", "digest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def exported(source: str) -> list[dict[str, Any]]:
    done = digest("export", source)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def hash_of(*texts: str) -> str:
    """As 0006_digests says, computed by other means."""
    parts = [int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "big", signed=True) for text in texts]
    return str(sum(parts))


def test_digests_of_rows_are_those_that_the_description_gives(datalake_dsn: str) -> None:
    fill(datalake_dsn)
    eleven = int(datetime(2026, 11, 1, 11, tzinfo=UTC).timestamp())
    micros = [(eleven - 2 + n) * 1_000_000 for n in range(5)]
    trades = [f"trades|1|{micros[n]}|{n}|{'buy' if n % 2 == 0 else 'sell'}|{100 + n}.10|0.5000||" for n in range(1, 5)]
    found = exported(f"rows:{datalake_dsn}")
    assert [(one["channel"], one["hour"], one["rows"], one["hash"]) for one in found] == [
        ("quotes", "2026-11-01T10:00:00Z", 1, hash_of("quotes|1|7|1.50|2||")),
        ("trades", "2026-11-01T10:00:00Z", 1, hash_of(trades[0])),
        ("trades", "2026-11-01T11:00:00Z", 3, hash_of(*trades[1:])),
    ]


def test_events_without_ids_are_told_apart_by_time(datalake_dsn: str) -> None:
    """What Binance's update id says of a quote, the time says where there is no id."""
    with psycopg.connect(datalake_dsn) as connection:
        connection.execute(INSTRUMENT.replace("binance", "deribit"))
        connection.execute(QUOTE.replace(", 7, 1,", ", NULL, 1,").encode())
    (found,) = exported(f"rows:{datalake_dsn}")
    micros = int(datetime(2026, 11, 1, 10, tzinfo=UTC).timestamp()) * 1_000_000
    assert found["hash"] == hash_of(f"quotes|1|{micros}||1.50|2||")


def test_equal_histories_are_equal_whatever_was_received_when(datalake_dsn: str, other_lake_dsn: str) -> None:
    fill(datalake_dsn)
    fill(other_lake_dsn)
    with psycopg.connect(other_lake_dsn) as connection:
        connection.execute("UPDATE trades SET received_at = received_at + interval '3 s', ingestor = 'ing2', epoch = 9")
    done = digest("compare", f"rows:{datalake_dsn}", f"rows:{other_lake_dsn}")
    assert (done.returncode, done.stdout) == (0, "Equal: 5 rows in 3 hours of instruments and channels.\n"), done.stderr


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("UPDATE trades SET price = price + 0.01 WHERE trade_id = '3'", "11:00: 3 rows in both, with other content"),
        ("UPDATE trades SET amount = 0.500 WHERE trade_id = '1'", "10:00: 1 rows in both, with other content"),
        ("DELETE FROM trades WHERE trade_id = '4'", "11:00: 3 rows in A, 2 rows in B"),
        ("DELETE FROM trades WHERE trade_id = '1'", "10:00: 1 rows in A, no rows in B"),
    ],
)
def test_the_hour_of_a_changed_row_is_named(datalake_dsn: str, other_lake_dsn: str, harm: str, said: str) -> None:
    fill(datalake_dsn)
    fill(other_lake_dsn)
    change(other_lake_dsn, harm)
    done = digest("compare", f"rows:{datalake_dsn}", f"rows:{other_lake_dsn}")
    first, last = done.stdout.splitlines()
    assert (done.returncode, first) == (1, f"binance BTCUSDT trades 2026-11-01 {said}"), done.stderr
    assert last.startswith("Different in 1 of 3 hours")
    before = digest("compare", f"rows:{datalake_dsn}", f"rows:{other_lake_dsn}", "--until", "2026-11-01T10:00")
    assert before.returncode == 3, before.stdout
    assert "nothing was compared" in before.stderr


def test_a_file_exported_before_a_harm_shows_it(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    path = tmp_path / "before.jsonl"
    assert digest("export", f"rows:{datalake_dsn}", str(path)).stdout == f"{path}: 3 digests\n"
    assert digest("compare", str(path), f"rows:{datalake_dsn}").returncode == 0
    change(datalake_dsn, "UPDATE quotes SET ask_price = 2")
    done = digest("compare", str(path), f"rows:{datalake_dsn}", "--json")
    difference, total = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert (difference["a"]["channel"], difference["a"]["hour"]) == ("quotes", "2026-11-01T10:00:00Z")
    assert difference["a"]["hash"] != difference["b"]["hash"]
    assert total == {"hours": 3, "rows_a": 5, "rows_b": 5, "different": 1}


@pytest.mark.parametrize(
    ("a", "code", "said"),
    [
        ("nowhere.jsonl", 2, "nowhere.jsonl is no file; expected one of `cryptopip digest export`"),
        ("host=127.0.0.1 port=1 dbname=x", 3, "cannot read digests: "),
        ("{ingestor}", 3, "has no digests, dropped_chunks, so it is no datalake"),
    ],
)
def test_a_source_that_is_none_is_refused(datalake_dsn: str, ingestor_dsn: str, a: str, code: int, said: str) -> None:
    done = digest("compare", a.replace("{ingestor}", ingestor_dsn), datalake_dsn)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
