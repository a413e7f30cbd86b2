"""``bin/bench continuity``: what a check costs as the history behind it grows, and a whole year of many instruments.

Two ingestors that reconnect every hour (the day) or every day (the year), each with a gap of its own now and then, so
that intervals must be merged. Rows of events there are none: what is measured is the arithmetic on coverage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.ingest import machine, test_server
from collectors.coverage.continuity import check_continuity
from collectors.coverage.model import Query
from tests.conftest import fresh_database

START = datetime(2023, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = (1, 100, 1000)
TIMES = 20
"""How often a day is checked; the best counts."""

SAME: float = 1.5
"""How much more than behind one day of history it may cost to be called the same."""

_INSTRUMENTS = """
INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, price_tick, amount_step, listed_at)
SELECT n, 'binance', 'C' || n || '/USDT', 'C' || n || 'USDT', 'spot', 'C' || n, 'USDT', 0.01, 0.001, %(start)s
FROM generate_series(1, %(instruments)s) AS n
"""
_RECORDING = """
INSERT INTO recording (instrument_id, channel, during)
SELECT n, 'trades', tstzrange(%(start)s, NULL) FROM generate_series(1, %(instruments)s) AS n
"""
_SOURCES = "INSERT INTO sources (incarnation, ingestor) VALUES (%s, %s)"
_COVERAGE = """
INSERT INTO coverage (
    incarnation, id, stream, ingestor, epoch, instrument_id, channel, started_at, ended_at, proof, ended_by, batch
)
SELECT
    %(incarnation)s, %(first)s + row_number() OVER (), %(ingestor)s || '/binance', %(ingestor)s,
    extract(epoch FROM at)::bigint * 1000000000, n, 'trades', at, at + %(length)s, 'sequence', 'disconnect', 1
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - %(every)s::interval, %(every)s::interval) AS at
CROSS JOIN generate_series(1, %(instruments)s) AS n
"""
INGESTORS = {"ing1": "00000000-0000-4000-8000-000000000001", "ing2": "00000000-0000-4000-8000-000000000002"}


@contextmanager
def datalake(instruments: int) -> Iterator[psycopg.Connection[Any]]:
    """A datalake of that many instruments, all of which were to be recorded from the start."""
    fresh = fresh_database(test_server(), "datalake")
    dsn = next(fresh)
    try:
        with psycopg.connect(dsn, client_encoding="UTF8", autocommit=True) as connection:
            for statement in (_INSTRUMENTS, _RECORDING):
                connection.execute(statement, {"instruments": instruments, "start": START})
            for ingestor, incarnation in INGESTORS.items():
                connection.execute(_SOURCES, [incarnation, ingestor])
            yield connection
    finally:
        for _ in fresh:
            pass


def cover(
    connection: psycopg.Connection[Any],
    instruments: int,
    between: tuple[datetime, datetime],
    *,
    every: timedelta,
    first: int = 0,
) -> None:
    """Coverage of both ingestors, an interval ``every`` so long with a break of a minute; together without a gap."""
    start, end = between
    for number, (ingestor, incarnation) in enumerate(INGESTORS.items()):
        shift = number * every / 2
        connection.execute(
            _COVERAGE,
            {
                "incarnation": incarnation,
                "ingestor": ingestor,
                "first": first,
                "instruments": instruments,
                "start": start - shift,
                "end": end,
                "every": every,
                "length": every - timedelta(minutes=1),
            },
        )
    connection.execute("VACUUM ANALYZE")


def seconds_of(connection: psycopg.Connection[Any], query: Query, found: int) -> float:
    """One check; it must find what was written."""
    begun = time.perf_counter()
    answers = check_continuity(connection, query)
    spent = time.perf_counter() - begun
    assert len(answers) == found, len(answers)
    assert not any(answer.gaps for answer in answers), answers[0]
    assert query.since is not None
    assert query.until is not None
    assert {answer.covered_seconds for answer in answers} == {(query.until - query.since).total_seconds()}
    return spent


def one_day() -> dict[int, float]:
    """Seconds to check the last day behind histories of growing length."""
    found = {}
    with datalake(1) as connection:
        done = 0
        for days in DAYS:
            start, end = START + done * DAY, START + days * DAY
            cover(connection, 1, (start, end), every=timedelta(hours=1), first=done * 100)
            done = days
            query = Query(since=end - DAY, until=end - timedelta(hours=1))
            found[days] = min(seconds_of(connection, query, 1) for _ in range(TIMES))
    return found


def one_year(instruments: int, days: int) -> tuple[float, float, int]:
    """Seconds of a whole check, seconds to count the rows it reads, and how many they are."""
    with datalake(instruments) as connection:
        end = START + days * DAY
        cover(connection, instruments, (START, end), every=DAY)
        query = Query(since=START, until=end - DAY)
        spent = seconds_of(connection, query, instruments)
        begun = time.perf_counter()
        row = connection.execute(
            "SELECT count(*) FROM coverage WHERE started_at < %s AND ended_at > %s", [query.until, query.since]
        ).fetchone()
        assert row is not None
        return spent, time.perf_counter() - begun, row[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="What a continuity check costs.")
    parser.add_argument("--instruments", type=int, default=5000)
    parser.add_argument("--days", type=int, default=365, help="length of the whole check")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    print(machine("continuity", "coverage without events"))
    day = one_day()
    print(f"\n  one day of one channel behind days of history, two ingestors, 48 intervals a day; best of {TIMES}")
    missed = False
    for days, spent in day.items():
        ratio = spent / day[DAYS[0]]
        missed = missed or ratio > SAME
        verdict = f"target {SAME}  {'MISSED' if ratio > SAME else 'reached'}"
        print(f"  {days:>6,} days   {spent * 1000:8.2f} ms   {ratio:6.2f} x   {verdict}")
    spent, floor, rows = one_year(options.instruments, options.days)
    print(f"\n  {options.days:,} days of {options.instruments:,} instruments, {rows:,} intervals")
    print(f"  check    {spent:8.2f} s\n  count(*) {floor:8.2f} s   {spent / floor:.1f} x")
    if options.json:
        options.json.write_text(json.dumps({"day": day, "year": spent, "count": floor, "rows": rows}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
