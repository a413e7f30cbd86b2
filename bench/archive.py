"""``bin/bench archive``: a month as CSV.gz and Parquet, against ``psql COPY | pigz`` and the bare COPY of its rows.

What it does not show: a datalake larger than memory, an archive on slow disks, and compression by the columnstore. The
files are written with fsync; those of pigz are not. The bundle of the month is measured apart: pigz makes none.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from bench.ingest import machine, test_server
from collectors.archive.bundle import bundle_month
from collectors.archive.database import one_state
from collectors.archive.export import export_month
from collectors.archive.manifest import read_manifest
from collectors.archive.month import Month
from collectors.archive.parquet import export_parquet
from collectors.digests import Source, Window
from tests.conftest import fresh_database

ROOT = Path(__file__).resolve().parents[1]
MONTH = Month(2026, 10)
TABLES = ("trades", "quotes", "book_events")
TARGETS = {"CSV.gz": 2.0, "Parquet": 3.0}
"""How many times the rows a second of ``psql COPY | pigz``."""
FLAT = 1.5
"""How much more memory ten times the rows may take to be called constant; much of it is the program itself."""

_INSTRUMENTS = """
INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, price_tick, amount_step, listed_at)
SELECT n, 'binance', 'C' || n || '/USDT', 'C' || n || 'USDT', 'spot', 'C' || n, 'USDT', 0.01, 0.00001, '2020-01-01'
FROM generate_series(1, 20) AS n
"""
# Prices walk, amounts do not, ids count: as on an exchange. A tenth of the rows are book events of ten levels.
_MOMENT = """generate_series(1, {rows}) AS n, LATERAL (
    SELECT timestamptz '2026-10-01' + n * (interval '30 days' / {rows}) AS at, 1 + n % 20 AS id,
        60000 + (1000 * sin(n / 50000.0))::numeric(12, 2) + (random() * 10)::numeric(12, 2) AS price
) AS m"""
_ROWS = {
    "trades": (
        0.45,
        "INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, is_buy, price, amount, ingestor)"
        " SELECT at, at + random() * interval '80 ms', 1764000000000000000, (5000000000 + n)::text, id,"
        " random() < 0.5, price, (random() ^ 4 * 3)::numeric(16, 5), 'ing' || 1 + n % 2 FROM ",
    ),
    "quotes": (
        0.45,
        "INSERT INTO quotes (time, received_at, epoch, update_id, instrument_id, bid_price, bid_amount, ask_price,"
        " ask_amount, ingestor) SELECT at, at + random() * interval '80 ms', 1764000000000000000, 70000000000 + n, id,"
        " price, (random() ^ 4 * 9)::numeric(16, 5), price + 0.01, (random() ^ 4 * 9)::numeric(16, 5),"
        " 'ing' || 1 + n % 2 FROM ",
    ),
    "book_events": (
        0.1,
        "INSERT INTO book_events (time, received_at, epoch, first_id, last_id, instrument_id, is_snapshot, bid_prices,"
        " bid_amounts, ask_prices, ask_amounts, ingestor) SELECT at, at + random() * interval '80 ms',"
        " 1764000000000000000, 80000000000 + n * 10, 80000000009 + n * 10, id, false, b.prices, b.amounts, a.prices,"
        " a.amounts, 'ing' || 1 + n % 2 FROM ",
    ),
}
_LEVELS = """, LATERAL (
    SELECT array_agg(price {sign} k * 0.01) AS prices, array_agg((random() ^ 4 * 9)::numeric(16, 5)) AS amounts
    FROM generate_series(1 + n * 0, 5) AS k
) AS {name}"""


def fill(dsn: str, rows: int) -> None:
    """As many rows of a month, instead of those that are there, with the digests that merges keep of them."""
    with psycopg.connect(dsn, client_encoding="UTF8", autocommit=True) as connection:
        connection.execute("TRUNCATE trades, quotes, book_events, digests, instruments CASCADE")
        connection.execute(_INSTRUMENTS)
        connection.execute("SET timescaledb.max_open_chunks_per_insert = 100")
        for table, (share, insert) in _ROWS.items():
            text = insert + _MOMENT.format(rows=int(rows * share))
            if table == "book_events":
                text += _LEVELS.format(sign="-", name="b") + _LEVELS.format(sign="+", name="a")
            connection.execute(text.encode())
        found = list(Source(f"rows:{dsn}").digests(Window()))
        connection.cursor().executemany(
            "INSERT INTO digests (instrument_id, channel, hour, rows, hash) VALUES (%s, %s, %s, %s, %s)",
            [(one.instrument_id, one.channel, one.hour, one.rows, one.hash) for one in found],
        )
        connection.execute("VACUUM ANALYZE")


def child(what: str, dsn: str, folder: Path, jobs: int) -> dict[str, Any]:
    """One of ours in a process of its own: seconds, rows, bytes, and the peak of its memory."""
    argv = [sys.executable, "-m", "bench.archive", "--child", what, dsn, str(folder), str(jobs)]
    answer: dict[str, Any] = json.loads(subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def work(what: str, dsn: str, folder: Path, jobs: int) -> dict[str, Any]:
    """What a child does."""
    begun = time.perf_counter()
    if what == "csv":
        exported = export_month(dsn, folder, MONTH, jobs=jobs, on_progress=lambda _: None)
        assert not exported.problems, exported.problems
        rows, size = _events(folder), exported.bytes
    else:
        with one_state(dsn, "bench", jobs) as source:
            written = export_parquet(source, folder, MONTH, lambda _: None)
        assert not written.problems, written.problems
        rows, size = written.rows, written.bytes
    spent = time.perf_counter() - begun
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    answer = {"seconds": spent, "rows": rows, "bytes": size, "peak_kib": int(peak[1])}
    if what == "csv":
        begun = time.perf_counter()
        bundle_month(folder, MONTH)
        answer["bundle_seconds"] = time.perf_counter() - begun
    return answer


def _events(folder: Path) -> int:
    manifest = read_manifest(folder / MONTH.name)
    assert manifest is not None
    return sum(entry.rows for entry in manifest.entries if entry.table in TABLES)


def piped(dsn: str, into: str, jobs: int = 1) -> dict[str, Any]:
    """The same rows by psql, so many tables at once, into a command of the shell."""

    def one(table: str) -> None:
        query = f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT csv, HEADER)"
        subprocess.run(
            ["bash", "-c", f'set -o pipefail; psql -Xq "$0" -c "$1" {into.format(table=table)}', dsn, query], check=True
        )

    begun = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(one, TABLES):
            pass
    return {"seconds": time.perf_counter() - begun}


def contenders(dsn: str, folder: Path, jobs: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured, by the name it is printed under."""
    return {
        "COPY alone": lambda: piped(dsn, "> /dev/null"),
        # What two processors can do at best, whatever is made of the rows.
        "COPY at once": lambda: piped(dsn, "> /dev/null", jobs),
        "psql | pigz": lambda: piped(dsn, f"| pigz > {folder}/{{table}}.csv.gz"),
        "CSV.gz": lambda: child("csv", dsn, folder / "csv", jobs),
        "Parquet": lambda: child("parquet", dsn, folder / "parquet", jobs),
    }


def measure(dsn: str, rounds: int, jobs: int) -> dict[str, list[dict[str, Any]]]:
    """Every contender once a round, in alternating order, into an empty folder."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="cryptopip-bench-", dir=ROOT / ".cache") as name:
            folder = Path(name)
            runs = contenders(dsn, folder, jobs)
            for what in reversed(runs) if number % 2 else runs:
                for made in ("csv", "parquet"):
                    shutil.rmtree(folder / made, ignore_errors=True)
                    (folder / made).mkdir()
                found.setdefault(what, []).append(runs[what]())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="A month as files, against psql and pigz.")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="files written at once, as the role has it")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    print(machine("archive", f"{options.rows:,} rows of a month: trades, quotes, and book events of ten levels"))
    fresh = fresh_database(test_server(), "datalake")
    dsn = next(fresh)
    try:
        fill(dsn, options.rows // 10)
        small = measure(dsn, 1, options.jobs)
        fill(dsn, options.rows)
        found = measure(dsn, options.rounds, options.jobs)
    finally:
        for _ in fresh:
            pass
    if options.json:
        options.json.write_text(json.dumps({"tenth": small, "whole": found}, indent=1))
    return report(options.rows, small, found)


def report(rows: int, small: dict[str, list[dict[str, Any]]], found: dict[str, list[dict[str, Any]]]) -> int:
    """Print it; 1 where a target is missed."""
    expected = found["CSV.gz"][0]["rows"]
    assert {one["rows"] for what in TARGETS for one in found[what]} == {expected}, "not all rows were written"
    assert expected >= rows * 0.99, expected
    missed = False
    peer = median(one["seconds"] for one in found["psql | pigz"])
    print(f"\n  {'':<14}{'rows/s':>12}{'spread':>18}{'x psql | pigz':>15}{'MiB':>8}   target")
    for what, runs in found.items():
        seconds = sorted(one["seconds"] for one in runs)
        ratio = peer / median(seconds)
        target = TARGETS.get(what)
        missed = missed or (target is not None and ratio < target)
        spread = f"{expected / seconds[-1]:,.0f}-{expected / seconds[0]:,.0f}"
        size = f"{runs[0]['bytes'] / 2**20:.0f}" if "bytes" in runs[0] else ""
        verdict = "" if target is None else f"{target}  {'reached' if ratio >= target else 'MISSED'}"
        print(f"  {what:<14}{expected / median(seconds):>12,.0f}{spread:>18}{ratio:>15.2f}{size:>8}   {verdict}")
    bundle = median(one["bundle_seconds"] for one in found["CSV.gz"])
    print(f"  the .tar.gz of the CSV.gz files takes {bundle:.1f} s more")
    print(f"\n  peak memory, MiB{rows // 10:>14,} rows{rows:>14,} rows")
    for what in TARGETS:
        little, much = small[what][0]["peak_kib"], max(one["peak_kib"] for one in found[what])
        missed = missed or much > FLAT * little
        print(
            f"  {what:<14}{little / 1024:>19.0f}{much / 1024:>19.0f}   {'flat' if much <= FLAT * little else 'GROWS'}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(work(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))))
    else:
        sys.exit(main())
