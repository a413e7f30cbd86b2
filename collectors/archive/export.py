"""A month of the datalake into its folder: one snapshot, only what changed, the manifest last.

A run may be killed at any moment. Until the manifest is written ``.progress.json`` beside it lists the files that are
whole; the next run keeps those whose digest is still that of the datalake, and writes the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from collectors import __version__
from collectors.archive.database import (
    Snapshot,
    bounds_of,
    check_schema,
    columns_of,
    digest_of,
    months_with_data,
    reading,
    session,
    take_snapshot,
    unknown_tables,
)
from collectors.archive.errors import ArchiveError
from collectors.archive.gzip_csv import write_csv
from collectors.archive.manifest import (
    FORMAT,
    MANIFEST,
    PROGRESS,
    Column,
    Digest,
    Entry,
    Manifest,
    read_manifest,
    write_manifest,
)
from collectors.archive.month import Month
from collectors.archive.tables import TABLES, Table
from collectors.datalake import is_dropped
from collectors.files import fsync_folder, replace_file

MICROSECOND = timedelta(microseconds=1)


class Progress(Struct, frozen=True):
    """Rows of a table's month written so far, of as many as the digests say there are."""

    month: str
    table: str
    rows: int
    of: int


class Exported(Struct, frozen=True):
    """What became of a month: tables written, tables whose file was still right, and what is wrong with its rows.

    ``is_left``: nothing was written, as the datalake no longer has what the archive lacks.
    """

    month: str
    written: list[str]
    kept: list[str]
    rows: int
    bytes: int
    problems: list[str]
    is_left: bool = False


class _Wanted(Struct, frozen=True):
    """A table as the snapshot has it; ``is_dropped``: some of its month's rows are no longer there."""

    table: Table
    columns: list[Column]
    digest: Digest
    is_dropped: bool

    def is_in(self, folder: Path, entry: Entry | None) -> bool:
        """Whether the file of ``entry`` holds just this."""
        return (
            entry is not None
            and (entry.digest, entry.columns) == (self.digest, self.columns)
            and _size(folder / entry.file) == entry.bytes
        )


def find_months(conninfo: str) -> tuple[list[Month], list[str]]:
    """The months that have something to archive, and the tables that this version does not know."""
    with session(conninfo, "export") as connection, reading(connection):
        check_schema(connection)
        return months_with_data(connection), unknown_tables(connection)


def export_month(
    conninfo: str, root: Path, month: Month, *, jobs: int, on_progress: Callable[[Progress], None]
) -> Exported:
    """Bring the month's folder below ``root`` to what the datalake holds now; the caller holds the archive's lock."""
    folder = root / month.name
    with session(conninfo, "export") as connection, reading(connection):
        check_schema(connection)
        snapshot = take_snapshot(connection)
        wanted = [
            _Wanted(
                table,
                columns_of(connection, table.name),
                digest_of(connection, table, month),
                is_dropped(connection, table.name, month.start, month.end - MICROSECOND),
            )
            for table in TABLES
        ]
        old = _entries(folder)
        kept = [old[one.table.name] for one in wanted if one.is_in(folder, old.get(one.table.name))]
        stale = [one for one in wanted if one.table.name not in {entry.table for entry in kept}]
        lost = [one for one in stale if one.is_dropped]
        if any(one.table.name not in old for one in lost):
            return _left_alone(month, kept, lost)
        kept += [old[one.table.name] for one in lost]
        stale = [one for one in stale if not one.is_dropped]
        if stale or (folder / PROGRESS).exists() or read_manifest(folder) is None:
            _make(folder)
            draft = _manifest(month, snapshot, kept)
            written = _write_all(conninfo, snapshot, folder, draft, stale, jobs=jobs, on_progress=on_progress)
            manifest = replace(draft, entries=_in_order([*kept, *written]))
            write_manifest(folder, MANIFEST, manifest)
            (folder / PROGRESS).unlink()
            fsync_folder(folder)
        else:
            manifest, written = _manifest(month, snapshot, kept), []
    return Exported(
        month.name,
        [entry.table for entry in written],
        [entry.table for entry in kept],
        sum(entry.rows for entry in manifest.entries),
        sum(entry.bytes for entry in manifest.entries),
        [*(problem for entry in manifest.entries for problem in _problems(entry)), *map(_said_of_lost, lost)],
    )


def _left_alone(month: Month, kept: list[Entry], lost: list[_Wanted]) -> Exported:
    """A month of which the archive has not all and the datalake has no longer all either: nothing is written."""
    names = [entry.table for entry in kept]
    return Exported(
        month.name,
        [],
        names,
        sum(entry.rows for entry in kept),
        sum(entry.bytes for entry in kept),
        list(map(_said_of_lost, lost)),
        is_left=True,
    )


def _said_of_lost(wanted: _Wanted) -> str:
    return (
        f"{wanted.table.name}: its file is not what the datalake had, whose rows of this month were dropped since:"
        " it is left as it is; bring the month back from the off-site copy"
    )


def _entries(folder: Path) -> dict[str, Entry]:
    """What earlier runs left, finished or not; the unfinished one is the newer."""
    found: dict[str, Entry] = {}
    for name in (MANIFEST, PROGRESS):
        manifest = read_manifest(folder, name)
        found |= {entry.table: entry for entry in manifest.entries} if manifest else {}
    return found


def _make(folder: Path) -> None:
    """The folder, durable, without what a killed run left half written."""
    if not folder.is_dir():
        folder.mkdir()
        fsync_folder(folder.parent)
    for left in folder.glob(".*.tmp"):
        left.unlink()


def _manifest(month: Month, snapshot: Snapshot, entries: list[Entry]) -> Manifest:
    return Manifest(
        format=FORMAT,
        month=month.name,
        database=snapshot.database,
        snapshot_at=snapshot.taken_at,
        schema=snapshot.schema,
        cryptopip=__version__,
        entries=entries,
    )


def _write_all(
    conninfo: str,
    snapshot: Snapshot,
    folder: Path,
    draft: Manifest,
    stale: list[_Wanted],
    *,
    jobs: int,
    on_progress: Callable[[Progress], None],
) -> list[Entry]:
    """Write ``stale``, ``jobs`` tables at once, noting each file that is whole; the first failure stops all."""
    month = Month.named(draft.month)
    lock, stop, written = threading.Lock(), threading.Event(), list[Entry]()
    # From here on the manifest may be older than the files beside it, and this file says so.
    write_manifest(folder, PROGRESS, draft)

    def tell(progress: Progress) -> None:
        if stop.is_set():
            raise ArchiveError("stopped, since another table could not be written")
        with lock:
            on_progress(progress)

    def one(wanted: _Wanted) -> None:
        with session(conninfo, "export") as connection, reading(connection, snapshot):
            entry = _write(connection, folder, month, wanted, tell)
        with lock:
            written.append(entry)
            write_manifest(folder, PROGRESS, replace(draft, entries=[*draft.entries, *written]))

    largest_first = sorted(stale, key=lambda wanted: -wanted.digest.rows)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, wanted) for wanted in largest_first]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() for future in futures):
                stop.set()
                pool.shutdown(cancel_futures=True)
        for future in done:
            future.result()
    return written


def _write(
    connection: psycopg.Connection[Any],
    folder: Path,
    month: Month,
    wanted: _Wanted,
    on_progress: Callable[[Progress], None],
) -> Entry:
    table = wanted.table
    name = f"{table.name}.csv.gz"
    rows = 0

    def on_rows(more: int) -> None:
        nonlocal rows
        rows += more
        on_progress(Progress(month.name, table.name, rows, wanted.digest.rows))

    with replace_file(folder / name) as file:
        writer, counts = write_csv(connection, table, month, wanted.columns, file, on_rows=on_rows)
    first, last = bounds_of(connection, table.name, counts)
    return Entry(
        table=table.name,
        file=name,
        rows=counts.rows,
        digest=wanted.digest,
        columns=wanted.columns,
        first_time=first,
        last_time=last,
        bytes=writer.bytes,
        csv_bytes=writer.plain_bytes,
        sha256=writer.sha256,
    )


def _problems(entry: Entry) -> list[str]:
    if entry.rows == entry.digest.rows:
        return []
    return [
        f"{entry.table}: {entry.rows:,} rows written, but the digests count {entry.digest.rows:,}: the archive holds"
        " what the table holds; `cryptopip digest compare` names the hours"
    ]


def _in_order(entries: list[Entry]) -> list[Entry]:
    by_table = {entry.table: entry for entry in entries}
    return [by_table[table.name] for table in TABLES]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
