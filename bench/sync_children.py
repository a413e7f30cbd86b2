"""What ``bench.sync`` measures, each in a process of its own: sync, and the two ways that one would write first.

``python -m bench.sync_children ACTION INGESTOR INGESTOR DATALAKE`` prints seconds, rows pulled and peak memory.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from collectors.config import Source, Sync
from collectors.sync import sync_once
from collectors.sync.channels import BOOK_EVENTS, QUOTES, TRADES, ChannelSpec, copy_columns

SPECS: Final = (TRADES, QUOTES, BOOK_EVENTS)
IDENTITY: Final = {"trades": ("trade_id",), "quotes": ("update_id",), "book_events": ("last_id", "is_snapshot")}
_AT_ONCE: Final = 10_000
Row = tuple[Any, ...]


def pull(ingestors: list[str], datalake: str) -> int:
    """Sync; rows pulled."""
    report = sync_once(Sync(datalake, [Source(f"ing{n}", dsn) for n, dsn in enumerate(ingestors, 1)]))
    assert not report.failed, report
    assert not report.conflicts, report
    return report.pulled


def collect(ingestors: list[str], datalake: str) -> int:
    """As the seed system did: everything into memory, duplicates sorted out there, then inserted."""
    pulled = 0
    with psycopg.connect(datalake) as lake:
        for spec in SPECS:
            found: dict[Row, Row] = {}
            for number, dsn in enumerate(ingestors, 1):
                with psycopg.connect(dsn) as ingestor:
                    rows = ingestor.execute(_query(spec)).fetchall()
                pulled += len(rows)
                for row in rows:
                    found.setdefault(_identity(spec, row), (*row, f"ing{number}"))
            lake.cursor().executemany(_insert(spec), list(found.values()))
    return pulled


def upsert(ingestors: list[str], datalake: str) -> int:
    """Streamed in constant memory, the duplicates left to the database."""
    pulled = 0
    with psycopg.connect(datalake, autocommit=True) as lake:
        for spec in SPECS:
            for number, dsn in enumerate(ingestors, 1):
                for rows in _pieces(spec, dsn):
                    pulled += len(rows)
                    with lake.transaction():
                        lake.cursor().executemany(
                            sql.SQL("{} ON CONFLICT DO NOTHING").format(_insert(spec)),
                            [(*row, f"ing{number}") for row in rows],
                        )
    return pulled


def _pieces(spec: ChannelSpec, dsn: str) -> Iterator[list[Row]]:
    with psycopg.connect(dsn) as ingestor, ingestor.cursor(name="rows") as cursor:
        cursor.execute(_query(spec))
        while rows := cursor.fetchmany(_AT_ONCE):
            yield rows


def _query(spec: ChannelSpec) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {}").format(copy_columns(spec), sql.Identifier(spec.name))


def _insert(spec: ChannelSpec) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}, ingestor) VALUES ({})").format(
        sql.Identifier(spec.name),
        copy_columns(spec),
        sql.SQL(", ").join([sql.Placeholder()] * (len(spec.columns) + 1)),
    )


def _identity(spec: ChannelSpec, row: Row) -> Row:
    names = [name for name, _ in spec.columns]
    return tuple(row[names.index(name)] for name in ("instrument_id", *IDENTITY[spec.name]))


if __name__ == "__main__":
    action, *ingestors, datalake = sys.argv[1:]
    begun = time.perf_counter()
    rows = {"sync": pull, "collect": collect, "upsert": upsert}[action](ingestors, datalake)
    seconds = time.perf_counter() - begun
    # Not getrusage: its peak is inherited from the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_kib": int(peak[1])}))
