"""Tardis' daily files of a real datalake: their headers, their rows, their order."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.archive_harness import archive, contents, execute, fill, keep_digests, rows_of

pytestmark = pytest.mark.database
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CAPTURES = {
    "trades": "bitmex_trades_XBTUSD.head.csv",
    "quotes": "huobi-dm-swap_quotes_BTC-USD.head.csv",
    "incremental_book_L2": "deribit_incremental_book_L2_BTC-PERPETUAL.head.csv",
    "derivative_ticker": "derivative_ticker.head.csv",
}


def export(dsn: str, folder: Path, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    done = archive("tardis", folder, "--dsn", dsn, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


def table(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline="")))


def micros(moment: datetime) -> str:
    return str((moment - EPOCH) // timedelta(microseconds=1))


@pytest.mark.captures
def test_headers_are_those_of_tardis(datalake_dsn: str, tmp_path: Path, captures: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    for kind, name in CAPTURES.items():
        (path,) = tmp_path.glob(f"tardis/*/{kind}/2026/11/01/*.csv.gz")
        expected = (captures / "tardis" / name).read_text().splitlines()[0]
        assert ",".join(table(path)[0]) == expected


def test_a_day_of_an_instrument_is_one_file_in_the_order_of_receipt(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    execute(datalake_dsn, "UPDATE trades SET received_at = received_at + interval '1 s' WHERE trade_id = 't25'")
    export(datalake_dsn, tmp_path)
    assert {name for name in contents(tmp_path) if name.endswith(".gz")} == {
        f"tardis/{exchange}/{kind}/2026/{day}/{symbol}.csv.gz"
        for exchange, kind, symbol, days in (
            ("binance", "trades", "BTCUSDT", ("10/31", "11/01")),
            ("binance", "quotes", "BTCUSDT", ("10/31", "11/01")),
            ("deribit", "incremental_book_L2", "BTC-PERPETUAL", ("10/31", "11/01")),
            ("deribit", "derivative_ticker", "BTC-PERPETUAL", ("11/01",)),
            ("deribit", "liquidations", "BTC-PERPETUAL", ("11/01",)),
        )
        for day in days
    }
    trades = rows_of(
        datalake_dsn,
        "SELECT time, received_at, trade_id, is_buy, price, amount FROM trades WHERE time >= '2026-11-01'"
        " ORDER BY received_at",
    )
    sides = {True: "buy", False: "sell", None: "unknown"}
    assert table(tmp_path / "tardis/binance/trades/2026/11/01/BTCUSDT.csv.gz")[1:] == [
        ["binance", "BTCUSDT", micros(time), micros(received), id_, sides[is_buy], f"{price:f}", f"{amount:f}"]
        for time, received, id_, is_buy, price, amount in trades
    ]
    assert trades != sorted(trades), "the order of receipt would be that of time anyway"


def test_levels_of_an_event_stay_together_in_the_order_of_the_events(datalake_dsn: str, tmp_path: Path) -> None:
    """Also where events came in one frame and carry no ids: their place in it decides."""
    fill(datalake_dsn)
    execute(
        datalake_dsn,
        "UPDATE book_events SET received_at = '2026-11-01 00:00:09+00', time = '2026-11-01', ordinal = 50 - last_id,"
        " last_id = NULL WHERE time >= '2026-11-01'",
    )
    keep_digests(datalake_dsn)
    export(datalake_dsn, tmp_path)
    expected = []
    query = "SELECT time, received_at, is_snapshot, ask_prices, ask_amounts, bid_prices, bid_amounts FROM book_events"
    for time, received, is_snapshot, *sides in rows_of(
        datalake_dsn, f"{query} WHERE time >= '2026-11-01' ORDER BY ordinal"
    ):
        for side, prices, amounts in (("ask", *sides[:2]), ("bid", *sides[2:])):
            expected += [
                [
                    "deribit",
                    "BTC-PERPETUAL",
                    micros(time),
                    micros(received),
                    str(is_snapshot).lower(),
                    side,
                    f"{p:f}",
                    f"{a:f}",
                ]
                for p, a in zip(prices, amounts, strict=True)
            ]
    assert table(tmp_path / "tardis/deribit/incremental_book_L2/2026/11/01/BTC-PERPETUAL.csv.gz")[1:] == expected
    assert len({row[6] for row in expected}) > 10


def test_only_days_that_changed_are_written_again(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    assert [one["written"] for one in export(datalake_dsn, tmp_path)[0]] == [3, 5]
    before = contents(tmp_path)
    assert [(one["written"], one["kept"]) for one in export(datalake_dsn, tmp_path)[0]] == [(0, 3), (0, 5)]
    assert contents(tmp_path) == before
    execute(datalake_dsn, "UPDATE quotes SET bid_price = 7 WHERE update_id = 9000000000030")
    keep_digests(datalake_dsn)
    lost = tmp_path / "tardis/deribit/liquidations/2026/11/01/BTC-PERPETUAL.csv.gz"
    lost.unlink()
    assert [one["written"] for one in export(datalake_dsn, tmp_path)[0]] == [0, 2]
    after = contents(tmp_path)
    assert {name.rpartition("/")[0] for name in after if after[name] != before[name]} == {
        "tardis/binance/quotes/2026/11/01"
    }
    for index in tmp_path.rglob("index.json"):
        for one in json.loads(index.read_bytes()):
            stored = (index.parent / one["file"]).read_bytes()
            assert (one["bytes"], one["sha256"]) == (len(stored), hashlib.sha256(stored).hexdigest())
            assert one["rows"] == len(table(index.parent / one["file"])) - 1


def test_two_symbols_of_one_file_name_are_told_and_neither_is_mixed(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    for number, native_id in ((6, "A/B"), (7, "A:B")):
        execute(
            datalake_dsn,
            "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
            f" VALUES ({number}, 'binance', 'A/B', '{native_id}', 'spot', 'A', 'B', '2020-01-01');"
            " INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)"
            f" VALUES ('2026-11-03', '2026-11-03', 1, '1', {number}, {number}, 1, 'ing1')",
        )
    keep_digests(datalake_dsn)
    _, said = export(datalake_dsn, tmp_path, code=1)
    assert "A-B.csv.gz is that of A/B: A:B would have the same name and is left out" in said
    (row,) = table(tmp_path / "tardis/binance/trades/2026/11/03/A-B.csv.gz")[1:]
    assert (row[1], Decimal(row[6])) == ("A/B", Decimal(6))
