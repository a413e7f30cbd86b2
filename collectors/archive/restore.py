"""A month of the archive back into a datalake, exactly: each table whole, in its own transaction, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from isal import isal_zlib
from msgspec import Struct
from psycopg import sql

from collectors.archive.database import check_schema, columns_of, digest_of, session
from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import MANIFEST, PROGRESS, Column, Entry, Manifest, read_manifest
from collectors.archive.merge import merge_statements, refuse_strangers
from collectors.archive.month import Month
from collectors.archive.tables import TABLES, Table
from collectors.archive.verify import file_problem
from collectors.decode import EXCHANGES
from collectors.sync.target import note_identities, only_one

_PIECE = 1 << 18


class Imported(Struct, frozen=True):
    """What became of a month: rows brought back by table, and the tables that held theirs already."""

    month: str
    inserted: dict[str, int]
    present: list[str]


def import_month(conninfo: str, root: Path, month: Month, on_table: Callable[[str, int], None]) -> Imported:
    """Bring a month back. Events come into a month that has none of that table, or are there already, equal.

    State is merged: what the datalake has is kept, unless the archive knows a later batch or end of it. Raises
    ArchiveError, before anything is changed, where a file is damaged or the datalake has other events in the month. A
    run that was killed is completed by the next. Sync does not run meanwhile.
    """
    folder = root / month.name
    manifest = _checked_manifest(folder)
    with session(conninfo, "import") as connection, only_one(connection, wait=True):
        check_schema(connection)
        _check_columns(connection, manifest)
        events = [table for table in TABLES if table.kind == "events"]
        present = [table.name for table in events if _is_present(connection, table, month, _entry(manifest, table))]
        inserted = _import_state(connection, folder, manifest, on_table)
        for table in events:
            if table.name not in present:
                on_table(table.name, _entry(manifest, table).rows)
                inserted[table.name] = _import_events(connection, folder, month, manifest, table)
    return Imported(month.name, inserted, present)


def _checked_manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ArchiveError(f"{folder} has no {MANIFEST}: it is no whole month of an archive")
    if (folder / PROGRESS).exists():
        raise ArchiveError(
            f"{folder}: an export was interrupted here, so manifest and files may differ: finish it first"
        )
    problems = [(entry.file, file_problem(folder, entry)) for entry in manifest.entries]
    if damaged := [f"{folder / file}: {problem}" for file, problem in problems if problem]:
        raise ArchiveError("\n".join([*damaged, "nothing was changed in the datalake"]))
    return manifest


def _entry(manifest: Manifest, table: Table) -> Entry:
    entry = manifest.entry(table.name)
    if entry is None:
        raise ArchiveError(
            f"the manifest of {manifest.month} has no {table.name}: import it with the release that wrote it"
        )
    return entry


def _check_columns(connection: psycopg.Connection[Any], manifest: Manifest) -> None:
    """A datalake may have columns that the archive has not, never the other way round."""
    for table in TABLES:
        there = columns_of(connection, table.name)
        if lacking := [column for column in _entry(manifest, table).columns if column not in there]:
            names = ", ".join(f"{column.name} ({column.type})" for column in lacking)
            raise ArchiveError(
                f"the datalake's {table.name} has no {names}: the archive is of schema {manifest.schema or 'unknown'};"
                " migrate the datalake first (playbooks/migrate.yml); nothing was changed"
            )


def _is_present(connection: psycopg.Connection[Any], table: Table, month: Month, entry: Entry) -> bool:
    """Whether the month's events are there; raises ArchiveError where others are."""
    query = sql.SQL("SELECT count(*) FROM {} AS t WHERE {}").format(sql.Identifier(table.name), table.belongs_to(month))
    row = connection.execute(query).fetchone()
    rows = row[0] if row else 0
    digest = digest_of(connection, table, month)
    if rows == 0 and (digest.rows == 0 or digest == entry.digest):
        return entry.rows == 0  # none yet, or all of them dropped, of which the digests stay
    if (rows, digest) == (entry.rows, entry.digest):
        return True
    raise ArchiveError(
        f"{table.name}: the datalake has {rows:,} rows of {month.name} that are not the {entry.rows:,} of the archive,"
        " and an import never mixes two histories: import into another database, or remove the month's rows and digests"
        " first; nothing was changed"
    )


def _import_state(
    connection: psycopg.Connection[Any], folder: Path, manifest: Manifest, on_table: Callable[[str, int], None]
) -> dict[str, int]:
    inserted = {}
    with connection.transaction():
        for table in TABLES:
            if table.kind == "state" and table.name != "digests":
                entry = _entry(manifest, table)
                on_table(table.name, entry.rows)
                stage = _stage(connection, folder, entry)
                if table.name == "instruments":
                    refuse_strangers(connection, stage)
                inserted[table.name] = sum(
                    connection.execute(statement).rowcount
                    for statement in merge_statements(table.name, stage, [column.name for column in entry.columns])
                )
        for (exchange,) in connection.execute("SELECT DISTINCT exchange FROM instruments").fetchall():
            if exchange in EXCHANGES:
                note_identities(connection, exchange)
    return inserted


def _import_events(
    connection: psycopg.Connection[Any], folder: Path, month: Month, manifest: Manifest, table: Table
) -> int:
    entry = _entry(manifest, table)
    with connection.transaction():
        rows = _copy_in(connection, sql.Identifier(table.name), entry.columns, folder / entry.file)
        digests = manifest.entry("digests")
        assert digests is not None, "_check_columns has seen it"
        connection.execute(
            sql.SQL("INSERT INTO digests ({0}) SELECT {0} FROM {1} WHERE channel = {2} ON CONFLICT DO NOTHING").format(
                _names(digests.columns), _stage(connection, folder, digests), sql.Literal(table.name)
            )
        )
        connection.execute(
            "DELETE FROM dropped_chunks WHERE channel = %s AND during && tstzrange(%s, %s)",
            [table.name, month.start, month.end],
        )
        found = digest_of(connection, table, month)
        if (rows, found) != (entry.rows, entry.digest):
            raise ArchiveError(
                f"{table.name}: {rows:,} rows came with the digest {found}, the manifest of {month.name} promises"
                f" {entry.rows:,} with {entry.digest}: its files do not belong together; nothing of this table was kept"
            )
    return rows


def _stage(connection: psycopg.Connection[Any], folder: Path, entry: Entry) -> sql.Identifier:
    """A temporary table with what a file holds, gone with the transaction."""
    stage = sql.Identifier(f"import_{entry.table}")
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            stage, _names(entry.columns), sql.Identifier(entry.table)
        )
    )
    _copy_in(connection, stage, entry.columns, folder / entry.file)
    return stage


def _copy_in(connection: psycopg.Connection[Any], target: sql.Identifier, columns: list[Column], path: Path) -> int:
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER match)").format(target, _names(columns))
    with connection.cursor() as cursor:
        with cursor.copy(query) as copy:
            for piece in _plain(path):
                copy.write(piece)
        return cursor.rowcount


def _plain(path: Path) -> Iterator[bytes]:
    unpack = isal_zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield unpack.decompress(piece)


def _names(columns: list[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
