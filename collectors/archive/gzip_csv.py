"""A table's month as CSV.gz, streamed from the server's COPY: memory does not depend on the number of rows."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any, BinaryIO, Protocol

import psycopg
from isal import isal_zlib
from psycopg import sql

from collectors.archive.copying import copy_out
from collectors.archive.database import Counts
from collectors.archive.manifest import Column
from collectors.archive.month import Month
from collectors.archive.tables import Table

LEVEL = 1  # of isal's 0-3; 3 is a third slower for 4 % less
_BLOCK = 1 << 20  # one call of the compressor per MB: the server sends a message a row


class _Compressor(Protocol):
    def compress(self, data: bytes | bytearray, /) -> bytes: ...

    def flush(self) -> bytes: ...


class GzipWriter:
    """Compresses into ``file`` and keeps the books: ``bytes`` and ``sha256`` of what is written, ``plain_bytes``."""

    def __init__(self, file: BinaryIO, *, stored: bool = False) -> None:
        """``stored`` is for what is compressed already: it stays as it is, inside the format."""
        self._file = file
        # With a header of gzip, without a time in it. isal cannot store: its level 0 makes such files a fifth larger.
        self._compressor: _Compressor = (
            zlib.compressobj(0, wbits=31) if stored else isal_zlib.compressobj(level=LEVEL, wbits=31)
        )
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        self.plain_bytes = 0

    def write(self, data: bytes | bytearray) -> int:
        """Compress the next piece."""
        self.plain_bytes += len(data)
        self._put(self._compressor.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write what the compressor still holds."""
        self._put(self._compressor.flush())

    @property
    def sha256(self) -> str:
        """Of the file as it lies there, in hex."""
        return self._sha256.hexdigest()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.bytes += len(data)


def write_csv(
    connection: psycopg.Connection[Any],
    table: Table,
    month: Month,
    columns: list[Column],
    file: BinaryIO,
    *,
    on_rows: Callable[[int], None],
) -> tuple[GzipWriter, Counts]:
    """Write a table's month with a header; NULL is an empty field, the empty text a quoted one, as COPY has it.

    Events go day by day, so that ``on_rows`` and the days are known without another look; the rest goes at once.
    """
    writer = GzipWriter(file)
    writer.write(",".join(column.name for column in columns).encode() + b"\n")
    if table.kind == "state":
        counts = Counts(copy_rows(connection, _copy_query(table, columns, table.belongs_to(month)), writer, on_rows))
    else:
        counts = _copy_days(connection, table, month, columns, writer, on_rows=on_rows)
    writer.finish()
    return writer, counts


def _copy_days(
    connection: psycopg.Connection[Any],
    table: Table,
    month: Month,
    columns: list[Column],
    writer: GzipWriter,
    *,
    on_rows: Callable[[int], None],
) -> Counts:
    rows, days = 0, []
    for start, end in month.days():
        condition = sql.SQL("t.time >= {} AND t.time < {} AND {}").format(
            sql.Literal(start), sql.Literal(end), table.belongs_to(month)
        )
        copied = copy_rows(connection, _copy_query(table, columns, condition), writer, on_rows)
        rows += copied
        if copied:
            days.append(start)
    return Counts(rows, days[0], days[-1]) if days else Counts(rows)


def _copy_query(table: Table, columns: list[Column], condition: sql.Composed) -> sql.Composed:
    return sql.SQL("COPY (SELECT {} FROM {} AS t WHERE {}{}) TO STDOUT (FORMAT csv)").format(
        sql.SQL(", ").join(sql.Identifier("t", column.name) for column in columns),
        sql.Identifier(table.name),
        condition,
        # State is small, and its rows move when they change: in the order of all columns they give the same bytes.
        sql.SQL(" ORDER BY ") + sql.SQL(", ").join(sql.Identifier("t", column.name) for column in columns)
        if table.kind == "state"
        else sql.SQL(""),
    )


def copy_rows(
    connection: psycopg.Connection[Any], query: sql.Composed, writer: GzipWriter, on_rows: Callable[[int], None]
) -> int:
    """Compress what a COPY gives; returns its rows, of which ``on_rows`` hears every so often."""
    total = 0
    with closing(copy_out(connection, query, _BLOCK)) as blocks:
        for block, rows in blocks:
            writer.write(block)
            on_rows(rows)
            total += rows
    return total
