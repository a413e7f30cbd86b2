"""Journals with known content, loaders as processes of their own, and what the database then holds."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from collectors.journal import JournalWriter, Limits, Reason, Snapshot, Subscribed

ROOT = Path(__file__).resolve().parent.parent.parent
START_NS = 1_700_000_000_000_000_000
Row = tuple[Any, ...]
_LOADER = """
import sys
from pathlib import Path
from collectors.decode import decoder
from collectors.load import Loader
Loader(Path(sys.argv[1]), sys.argv[2], "ing1", decoder("binance"), piece_bytes=int(sys.argv[3])).run(until_idle=True)
"""


class Traffic:
    """One connection's frames of BTCUSDT, and the rows they must become."""

    def __init__(self, epoch: int = START_NS, first_id: int = 1) -> None:
        self.epoch = epoch
        self.now = epoch
        self.id = first_id
        self.frames: list[tuple[int, str]] = []
        self.trades: list[Row] = []
        self.quotes: list[Row] = []
        self.updates: list[Row] = []

    def add(self, count: int) -> Traffic:
        """``count`` times a trade, a quote and a book update of three levels."""
        for _ in range(count):
            self.now += 1_234_567
            n, ms = self.id, self.now // 10**6
            price, amount = f"{60000 + n % 977}.{n % 100:02d}000000", f"0.{n % 99999:08d}"
            at = self.now // 1000
            self._frame(
                "trade", {"e": "trade", "s": "BTCUSDT", "t": n, "p": price, "q": amount, "T": ms, "m": n % 2 == 0}
            )
            self.trades.append((self.epoch, at, ms * 1000, str(n), n % 2 == 1, price, amount))
            self._frame("bookTicker", {"u": 3 * n, "s": "BTCUSDT", "b": price, "B": amount, "a": price, "A": amount})
            self.quotes.append((self.epoch, at, 3 * n, price, amount, price, amount))
            bids = [[price, amount], [f"{n}.10", "0.00000000"]]
            depth = {
                "e": "depthUpdate",
                "E": ms,
                "s": "BTCUSDT",
                "U": 2 * n,
                "u": 2 * n + 1,
                "b": bids,
                "a": [["7.0", "1"]],
            }
            self._frame("depth@100ms", depth)
            self.updates.append(
                (
                    self.epoch,
                    at,
                    ms * 1000,
                    2 * n,
                    2 * n + 1,
                    [price, f"{n}.10"],
                    [amount, "0.00000000"],
                    ["7.0"],
                    ["1"],
                )
            )
            self.id += 1
        return self

    def _frame(self, stream: str, data: dict[str, Any]) -> None:
        self.frames.append((self.now, json.dumps({"stream": f"btcusdt@{stream}", "data": data})))


def write_journal(
    folder: Path,
    epoch: int,
    frames: Sequence[tuple[int, str | bytes]],
    *,
    close: Reason | None = "shutdown",
    group: int = 500,
    limits: Limits | None = None,
) -> None:
    """The frames as one epoch: subscribed to all at its start, with a snapshot behind the first group."""

    async def work() -> None:
        journal = JournalWriter(
            folder,
            stream="binance",
            exchange="binance",
            url="wss://exchange.invalid/stream",
            ingestor="ing1",
            software={"cryptopip": "0"},
            epoch=epoch,
            limits=limits,
            clock=lambda: epoch,
        )
        await journal.open()
        for channel in ("trades", "quotes", "book_events"):
            journal.mark(Subscribed(epoch, channel, ["BTCUSDT"]))
        for start in range(0, len(frames), group):
            for recv_ns, payload in frames[start : start + group]:
                journal.append(recv_ns, payload)
            await journal.commit()
        if close is None:
            await journal.abandon()
        else:
            await journal.close(close)

    asyncio.run(work())


def snapshot_mark(at: int, last_id: int) -> Snapshot:
    reply = json.dumps({"lastUpdateId": last_id, "bids": [["1.0", "2"]], "asks": [["8.0", "3"]]})
    return Snapshot(at, "book_events", "BTCUSDT", "http://exchange.invalid", at, reply)


def add_instrument(dsn: str, native_id: str = "BTCUSDT", number: int = 1) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
            " VALUES (%s, 'binance', %s, %s, 'spot', 'X', 'USDT', '2017-08-17T04:00:00Z')",
            (number, native_id, native_id),
        )


def start_loader(folder: Path, dsn: str, piece_bytes: int = 64 << 10) -> subprocess.Popen[bytes]:
    """A loader as a process that ends when nothing is left."""
    return subprocess.Popen(
        [sys.executable, "-c", _LOADER, str(folder), dsn, str(piece_bytes)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def load(folder: Path, dsn: str) -> None:
    """One undisturbed life of a loader."""
    process = start_loader(folder, dsn)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()


def ask(dsn: str, query: str) -> list[Row]:
    with psycopg.connect(dsn, client_encoding="UTF8", autocommit=True, options="-c timezone=UTC") as connection:
        return connection.execute(query.encode()).fetchall()


def count(dsn: str, table: str) -> int:
    return int(ask(dsn, f"SELECT count(*) FROM {table}")[0][0])


def until_more(dsn: str, query: str, than: int, process: subprocess.Popen[bytes], seconds: float = 60) -> int:
    """Wait until the query's number exceeds ``than`` or the process ended; the number then."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(dsn, autocommit=True) as connection:
        while True:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            if row[0] > than or process.poll() is not None:
                return int(row[0])
            assert time.monotonic() < deadline, f"{query}: still {row[0]} after {seconds} s"
            time.sleep(0.01)


_US = "(extract(epoch FROM {}) * 1000000)::bigint"
_AT, _TIME = _US.format("received_at"), _US.format("time")
TRADES = f"SELECT epoch, {_AT}, {_TIME}, trade_id, is_buy, price::text, amount::text FROM trades ORDER BY 1, 2, 4"
QUOTES = (
    f"SELECT epoch, {_AT}, update_id, bid_price::text, bid_amount::text, ask_price::text, ask_amount::text"
    " FROM quotes ORDER BY 1, 2, 3"
)
UPDATES = (
    f"SELECT epoch, {_AT}, {_TIME}, first_id, last_id, bid_prices::text[], bid_amounts::text[], ask_prices::text[],"
    " ask_amounts::text[] FROM book_events WHERE NOT is_snapshot ORDER BY 1, 2, 4"
)


def assert_holds(dsn: str, *traffics: Traffic) -> None:
    """The database holds these rows, every digit, and no other; and its ledger agrees."""
    for query, rows in (
        (TRADES, [row for one in traffics for row in one.trades]),
        (QUOTES, [row for one in traffics for row in one.quotes]),
        (UPDATES, [row for one in traffics for row in one.updates]),
    ):
        found = ask(dsn, query)
        assert len(found) == len(rows), query
        assert sorted(found, key=lambda row: row[:4]) == sorted(rows, key=lambda row: row[:4]), query
    assert_ledger(dsn)


def assert_ledger(dsn: str) -> None:
    """Batches are dense, and each holds exactly the rows it says, within the receive times it says."""
    assert ask(dsn, "SELECT count(*) = max(batch) AND min(batch) = 1 FROM load_batches") == [(True,)]
    for table in ("trades", "quotes", "book_events"):
        wrong = ask(
            dsn,
            f"SELECT b.batch, b.{table}, r.rows FROM load_batches AS b LEFT JOIN (SELECT batch, count(*) AS rows,"
            f" min(received_at) AS low, max(received_at) AS high FROM {table} GROUP BY batch) AS r USING (batch)"
            f" WHERE b.{table} <> coalesce(r.rows, 0) OR r.low < b.received_from OR r.high > b.received_to",
        )
        assert wrong == [], table
