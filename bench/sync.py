"""``bin/bench sync``: merging two ingestors, against COPY of prepared bytes and against what one would write first.

Trades and quotes half and half, and a tenth as many book events of ten levels a side; 95 % of it on both ingestors.
Each contender starts with an empty datalake, and all must come to the same rows, digit by digit. What it does not show:
a network between the hosts, disks under other load, late batches, compressed chunks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.children import dump
from bench.ingest import CACHE, Answer, child, machine, run, test_server
from bench.sync_children import IDENTITY
from collectors.digests import Source, Window
from tests.conftest import fresh_database

CONTENDERS = {
    "sync": "sync",
    "upsert": "INSERT ... ON CONFLICT from a client",
    "collect": "collect into memory, then insert",
}
FLOOR = "COPY of prepared bytes"
TARGET = 0.5
BATCH = 2000
"""Rows of each kind in a load batch."""

_INSTRUMENTS = """
INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)
SELECT n, 'binance', 'C' || n, 'C' || n, 'spot', 'C' || n, 'USDT', '2020-01-01' FROM generate_series(1, 10) AS n
"""
_AT = "timestamptz '2026-11-01 00:00:00Z' + n * interval '5 ms'"
_ROWS = {
    "trades": f"""
INSERT INTO trades (received_at, time, batch, epoch, stream_id, instrument_id, is_buy, trade_id, price, amount)
SELECT
    {_AT} + interval '20 ms', {_AT}, 1 + (n - %(low)s) / %(batch)s, 1, 1, 1 + n %% 10, n %% 2 = 0, n::text,
    60000 + (n %% 977) * 0.01, 0.00001 * (1 + n %% 9999)
FROM generate_series(%(low)s::bigint, %(high)s::bigint) AS n
""",
    "quotes": f"""
INSERT INTO quotes (
    received_at, time, batch, epoch, stream_id, instrument_id, update_id, bid_price, bid_amount, ask_price, ask_amount
)
SELECT
    {_AT} + interval '20 ms', {_AT}, 1 + (n - %(low)s) / %(batch)s, 1, 1, 1 + n %% 10, n,
    60000 + (n %% 977) * 0.01, 0.00001 * (1 + n %% 9999), 60001 + (n %% 977) * 0.01, 1.5
FROM generate_series(%(low)s::bigint, %(high)s::bigint) AS n
""",
    "book_events": f"""
INSERT INTO book_events (
    received_at, time, batch, epoch, stream_id, instrument_id, is_snapshot, first_id, last_id, bid_prices, bid_amounts,
    ask_prices, ask_amounts
)
SELECT
    {_AT} + interval '20 ms', {_AT}, 1 + (n - %(low)s) / %(batch)s, 1, 1, 1 + n %% 10, false, n * 10, n * 10 + 9,
    levels.prices, levels.amounts, levels.prices, levels.amounts
FROM generate_series(%(low)s::bigint, %(high)s::bigint) AS n
CROSS JOIN LATERAL (
    SELECT
        array_agg(60000 + (n %% 977) * 0.01 + level) AS prices,
        array_agg(0.00001 * (1 + (n + level) %% 9999)) AS amounts
    FROM generate_series(1, 10) AS level
) AS levels
WHERE n %% 5 = 0
""",
}
_BATCHES = """
INSERT INTO load_batches (
    stream_id, batch, segment, from_offset, to_offset, decoder_version, received_from, received_to, frames, trades,
    quotes, book_events, parked, rejected
)
SELECT
    1, batch, 's', 0, 0, 'bench', min(received_at), max(received_at), 0, count(*) FILTER (WHERE kind = 't'),
    count(*) FILTER (WHERE kind = 'q'), count(*) FILTER (WHERE kind = 'b'), 0, 0
FROM (
    SELECT 't' AS kind, batch, received_at FROM trades
    UNION ALL SELECT 'q', batch, received_at FROM quotes
    UNION ALL SELECT 'b', batch, received_at FROM book_events
) AS loaded
GROUP BY batch
"""


@contextmanager
def database(kind: str) -> Iterator[str]:
    """A fresh one with instruments; dropped afterwards."""
    fresh = fresh_database(test_server(), kind)
    dsn = next(fresh)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_INSTRUMENTS)
        yield dsn
    finally:
        for _ in fresh:
            pass


def fill(dsn: str, low: int, high: int) -> None:
    """An ingestor's rows: moments ``low`` to ``high``, each a trade and a quote, each fifth an update of a book."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO streams (ingestor, name, exchange) VALUES ('bench', 'binance', 'binance')")
        for statement in _ROWS.values():
            connection.execute(statement.encode(), {"low": low, "high": high, "batch": BATCH})
        connection.execute(_BATCHES)
        connection.execute("VACUUM ANALYZE")


def contend(name: str, ingestors: list[str]) -> tuple[Answer, list[Any]]:
    """One contender on an empty datalake; its answer, and the digests of the rows it left there."""
    with database("datalake") as lake:
        if name == "upsert":  # what makes ON CONFLICT see a duplicate; the merge needs no such index
            with psycopg.connect(lake, autocommit=True) as connection:
                for channel in ("quotes", "book_events"):
                    columns = ", ".join(IDENTITY[channel])
                    connection.execute(f"CREATE UNIQUE INDEX ON {channel} (instrument_id, {columns}, time)".encode())
        answer = run([sys.executable, "-m", "bench.sync_children", name, *ingestors, lake])
        if name == "sync":
            dump(lake, CACHE / "rows-merged")
        return answer, list(Source(f"rows:{lake}").digests(Window()))


def measure(rows: int, names: list[str]) -> dict[str, Answer]:
    """All contenders on that many trades and quotes, counted once; all must come to the same rows."""
    moments = rows // 2
    alone = moments // 40  # of each ingestor: with 2.5 % on either side 95 % are on both
    answers: dict[str, Answer] = {}
    with ExitStack() as stack:
        ingestors = [stack.enter_context(database("ingestor")) for _ in range(2)]
        fill(ingestors[0], 1, moments - alone)
        fill(ingestors[1], 1 + alone, moments)
        truth: list[Any] | None = None
        for name in names:
            answers[name], found = contend(name, ingestors)
            if truth is not None and found != truth:
                raise SystemExit(f"{name} came to other rows than {names[0]}: no comparison")
            truth = found
    with database("datalake") as lake:
        answers["copy"] = child("copy", lake, str(CACHE / "rows-merged"))
    expected = 2 * moments + moments // 5
    if answers["copy"]["rows"] != expected:
        raise SystemExit(f"{answers['copy']['rows']:,} rows in the history, expected {expected:,}")
    shutil.rmtree(CACHE / "rows-merged")
    return answers


def rate(answer: Answer) -> float:
    """Rows per second, of the ingestors' rows where there are such."""
    return float(answer["rows"] / answer["seconds"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Merging two ingestors, against COPY and against naive clients.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="trades and quotes; a tenth as many book events")
    parser.add_argument("--only-sync", action="store_true", help="leave the naive ways out, which need long or memory")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    if options.rows < 1000:
        parser.error(f"--rows is {options.rows}, expected 1000 or more: less shows only how long it takes to connect")
    print(machine("sync", f"{options.rows:,} trades and quotes on two ingestors, 95 % of them on both"))
    print(f"  loaded by others: {os.getloadavg()[0]:.2f} (a busy machine blurs the ratios)\n")
    sizes = (options.rows // 4, options.rows)
    found = {rows: measure(rows, ["sync"] if options.only_sync else list(CONTENDERS)) for rows in sizes}
    print("                                          rows pulled/s        / COPY    peak MiB")
    for rows, answers in found.items():
        print(f"  {rows:,} trades and quotes")
        print(f"  {FLOOR:<36} {rate(answers['copy']):>18,.0f}        1.00")
        for name in (name for name in CONTENDERS if name in answers):
            ratio = rate(answers[name]) / rate(answers["copy"])
            memory = answers[name]["peak_kib"] / 1024
            print(f"  {CONTENDERS[name]:<36} {rate(answers[name]):>18,.0f} {ratio:>11.2f} {memory:>11.0f}")
    small, large = (found[rows] for rows in sizes)
    ratio = rate(large["sync"]) / rate(large["copy"])
    growth = large["sync"]["seconds"] / small["sync"]["seconds"] / (large["sync"]["rows"] / small["sync"]["rows"])
    memory = large["sync"]["peak_kib"] / small["sync"]["peak_kib"]
    print(f"\n  sync / {FLOOR}: {ratio:.2f}, target {TARGET}: {'reached' if ratio >= TARGET else 'MISSED'}")
    print(f"  four times the rows: {growth:.2f} x the time a row (1 is linear), {memory:.2f} x the memory (1 is flat)")
    if options.json:
        options.json.write_text(json.dumps({str(rows): answers for rows, answers in found.items()}, indent=1))
    return 1 if ratio < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
