"""Parquet files of a real datalake, read back by another program: every value, exactly."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from collectors.events import CHANNELS
from tests.conftest import fresh_database
from tests.integration.archive_harness import ROOT, archive, execute, fill, keep_digests, rows_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.database
# What the other tests of the archive hold is more than 38 digits can say.
FITTING = """
UPDATE trades SET amount = amount * 1000000000000;
UPDATE book_events SET ask_prices = ARRAY[12345678901234567890.123456789012345678, 0.000000000000000001];
"""


@pytest.fixture
def lake(datalake_dsn: str) -> str:
    fill(datalake_dsn, rows=300, step="interval '0.5 s'")
    execute(datalake_dsn, FITTING)
    keep_digests(datalake_dsn)
    return datalake_dsn


@pytest.fixture
def other_lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


def export(dsn: str, folder: Path, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    done = archive("parquet", folder, "--dsn", dsn, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def plain(rows: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Values as Python has them; decimals without the zeros behind, which a type of fixed scale cannot keep."""
    for row in rows:
        yield tuple(_plain(value) for value in row)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if isinstance(value, Decimal):
        return value.normalize()
    return (value - EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


@pytest.mark.parametrize("channel", CHANNELS)
def test_another_program_reads_the_same_rows(lake: str, tmp_path: Path, channel: str) -> None:
    export(lake, tmp_path)
    with psycopg.connect(lake) as connection:
        cursor = connection.execute(f"SELECT * FROM {channel}".encode())
        names = [
            f"epoch_us({column.name})" if column.type_display == "timestamptz" else column.name
            for column in cursor.description or ()
        ]
        expected = list(plain(cursor.fetchall()))
    assert expected
    pattern = f"{tmp_path}/parquet/exchange=*/channel={channel}/*/*.parquet"
    with duckdb.connect() as duck:
        found = duck.execute(f"SELECT {', '.join(names)} FROM read_parquet('{pattern}')").fetchall()
    key = repr
    assert sorted(plain(found), key=key) == sorted(expected, key=key)


def test_files_are_partitioned_sorted_and_named(lake: str, tmp_path: Path) -> None:
    export(lake, tmp_path)
    found = files(tmp_path / "parquet")
    assert {name.removesuffix("/events.parquet") for name in found} == {
        f"exchange={exchange}/channel={channel}/day={day}"
        for exchange, channel, days in (
            ("binance", "trades", ("2026-10-31", "2026-11-01")),
            ("binance", "quotes", ("2026-10-31", "2026-11-01")),
            ("deribit", "book_events", ("2026-10-31", "2026-11-01")),
            ("deribit", "derivatives", ("2026-11-01",)),
            ("deribit", "liquidations", ("2026-11-01",)),
        )
        for day in days
    }
    for name in found:
        read = pq.read_table(tmp_path / "parquet" / name, partitioning=None)
        order = list(zip(read["instrument_id"].to_pylist(), read["time"].to_pylist(), strict=True))
        assert order == sorted(order)
        assert {*read["symbol"].to_pylist()} <= {"BTC/USDT", "BTC/USD:BTC"}
        assert pq.read_metadata(tmp_path / "parquet" / name).row_group(0).column(0).compression == "ZSTD"
    with duckdb.connect() as duck:
        every = f"read_parquet('{tmp_path}/parquet/*/*/*/*.parquet', union_by_name = true)"
        counted = duck.execute(
            f"SELECT exchange, channel, count(*) FROM {every} GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()
    assert counted == [
        ("binance", "quotes", 300), ("binance", "trades", 300),
        ("deribit", "book_events", 300), ("deribit", "derivatives", 2), ("deribit", "liquidations", 1),
    ]  # fmt: skip


def test_only_days_that_changed_are_written_again(lake: str, tmp_path: Path) -> None:
    first, _ = export(lake, tmp_path)
    assert [one["written"] for one in first] == [3, 5]
    before = files(tmp_path)
    again, _ = export(lake, tmp_path)
    assert [(one["written"], one["kept"]) for one in again] == [(0, 3), (0, 5)]
    assert files(tmp_path) == before
    execute(lake, "UPDATE trades SET price = price + 1 WHERE time >= '2026-11-01' AND trade_id = 't100'")
    keep_digests(lake)
    damaged = next(path for path in tmp_path.rglob("*.parquet") if "quotes/day=2026-10-31" in str(path))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    last, _ = export(lake, tmp_path)
    assert [one["written"] for one in last] == [1, 1]
    after = files(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {
        "parquet/exchange=binance/channel=trades/day=2026-11-01/events.parquet"
    }


def test_a_value_that_does_not_fit_is_named_and_never_rounded(lake: str, tmp_path: Path) -> None:
    execute(lake, "UPDATE trades SET amount = 0.0000000000000000001 WHERE trade_id = 't7'")
    keep_digests(lake)
    result, said = export(lake, tmp_path, code=1)
    assert [one["written"] for one in result] == [2, 5]
    assert "channel=trades/day=2026-10-31/events.parquet: a value does not fit" in said
    assert not [path for path in tmp_path.rglob("*") if "trades/day=2026-10-31/" in str(path)]


def test_rows_that_the_digests_do_not_count_are_written_and_told(lake: str, tmp_path: Path) -> None:
    execute(lake, "UPDATE digests SET rows = rows + 1 WHERE channel = 'liquidations'")
    result, said = export(lake, tmp_path, code=1)
    assert [one["written"] for one in result] == [3, 5]
    assert "channel=liquidations/day=2026-11-01/events.parquet: 1 rows written, but the digests count 2" in said


def test_the_text_of_a_trade_survives(lake: str, tmp_path: Path) -> None:
    """Quotes, newlines, the empty text and NULL are four things."""
    export(lake, tmp_path)
    expected = {row[0] for row in rows_of(lake, "SELECT sell_order_id FROM trades")}
    assert expected == {None, "", 'a "quoted"\nline, \r\t\\.', "NULL"}
    read = {
        value
        for path in tmp_path.rglob("channel=trades/*/*.parquet")
        for value in pq.read_table(path, partitioning=None)["sell_order_id"].to_pylist()
    }
    assert read == expected


@pytest.mark.parametrize("seed", range(2))
def test_every_number_that_fits_survives_whatever_its_digits(lake: str, tmp_path: Path, seed: int) -> None:
    """Alone and in arrays: zeros in front, between and behind, negative ones, up to 20 digits and 18 behind."""
    pick = random.Random(seed)
    numbers = [
        Decimal((pick.randrange(2), tuple(pick.choices((0, 0, 0, 1, 9, 4), k=whole + scale)), -scale))
        for scale in range(19)
        for whole in (1, 4, 5, 20)
        for _ in range(5)
    ]
    arrays = [pick.choices(numbers, k=pick.randrange(12)) for _ in numbers]
    with psycopg.connect(lake) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)"
            " VALUES ('2026-11-09', '2026-11-09', 1, %s, 1, %s, -%s::numeric, 'ing1')",
            [(str(at), number, number) for at, number in enumerate(numbers)],
        )
        cursor.executemany(
            "INSERT INTO book_events (time, received_at, epoch, last_id, instrument_id, is_snapshot, bid_prices,"
            " bid_amounts, ask_prices, ask_amounts, ingestor)"
            " VALUES ('2026-11-09', '2026-11-09', 1, %s, 1, false, %s, '{}', %s, '{}', 'ing1')",
            [(at, array, array[::-1]) for at, array in enumerate(arrays)],
        )
    keep_digests(lake)
    export(lake, tmp_path)
    days = {
        channel: pq.read_table(tmp_path / f"parquet/exchange=binance/channel={channel}/day=2026-11-09/events.parquet")
        for channel in ("trades", "book_events")
    }
    trades = {int(row["trade_id"]): (row["price"], row["amount"]) for row in days["trades"].to_pylist()}
    assert trades == {at: (number, number.copy_negate()) for at, number in enumerate(numbers)}
    books = {row["last_id"]: (row["bid_prices"], row["ask_prices"]) for row in days["book_events"].to_pylist()}
    assert books == {at: (array, array[::-1]) for at, array in enumerate(arrays)}
    assert len({number.normalize() for number in numbers}) > 100


def strip_zeros(dsn: str) -> None:
    """The digests are of the text of a number, and Parquet does not keep the zeros behind its last digit."""
    stripped = {"numeric": "trim_scale({0})", "numeric[]": "ARRAY(SELECT trim_scale(x) FROM unnest({0}) AS x)"}
    for channel in CHANNELS:
        columns = rows_of(
            dsn,
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            f" WHERE attrelid = '{channel}'::regclass AND attnum > 0 AND NOT attisdropped",
        )
        changes = [f"{name} = {stripped[kind].format(name)}" for name, kind in columns if kind in stripped]
        execute(dsn, f"UPDATE {channel} SET {', '.join(changes)}")


def test_files_read_back_into_an_empty_datalake_are_its_rows_and_digests(
    lake: str, other_lake_dsn: str, tmp_path: Path
) -> None:
    """EXCEPT both ways, and the digests: what Parquet keeps is every value, if not the zeros behind it."""
    export(lake, tmp_path)
    copied = "id, exchange, symbol, native_id, kind, base, quote, listed_at"
    with psycopg.connect(other_lake_dsn) as back, psycopg.connect(lake) as source:
        for row in source.execute(f"SELECT {copied} FROM instruments".encode()):
            back.execute(f"INSERT INTO instruments ({copied}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)".encode(), row)
        for path in sorted(tmp_path.rglob("*.parquet")):
            channel = next(part for part in path.parts if part.startswith("channel=")).removeprefix("channel=")
            read = pq.read_table(path, partitioning=None).drop_columns(["symbol", "native_id"])
            into = f"COPY {channel} ({', '.join(read.column_names)}) FROM STDIN"
            with back.cursor().copy(into.encode()) as copy:
                for row in zip(*(column.to_pylist() for column in read.columns), strict=True):
                    copy.write_row(row)
    for channel in CHANNELS:
        ours, theirs = (
            rows_of(dsn, f"SELECT * FROM {channel} ORDER BY time, {channel}") for dsn in (lake, other_lake_dsn)
        )
        assert ours
        assert theirs == ours
    for dsn in (lake, other_lake_dsn):
        strip_zeros(dsn)
    compared = subprocess.run(
        [sys.executable, "-m", "collectors", "digest", "compare", f"rows:{lake}", f"rows:{other_lake_dsn}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stdout
