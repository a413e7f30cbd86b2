"""A month of events as Parquet, partitioned by exchange, channel and day, readable as it is by what reads Parquet.

``parquet/exchange=binance/channel=trades/day=2026-11-01/events.parquet``: zstd, sorted by instrument and time; numbers
are decimals of 38 digits, 18 of them behind the point. The footer holds the digest of the rows, by which a change is
seen. ``2026-11.parquet.json`` beside the month's folder names the files, once all are on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv as pacsv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from msgspec import Struct
from psycopg import sql

from collectors.archive.copying import copy_out
from collectors.archive.database import Source, columns_of, session_of
from collectors.archive.export import Progress
from collectors.archive.manifest import Column, Digest
from collectors.archive.month import Month
from collectors.archive.parts import Part, Partition, partitions, read_parts, write_parts
from collectors.archive.verify import sha256_of, size_of
from collectors.archive.workers import in_parallel
from collectors.datalake import is_dropped
from collectors.files import fsync_folder, replace_file

DECIMAL = pa.decimal128(38, 18)
_TYPES = {
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "smallint": pa.int16(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "numeric": DECIMAL,
    "numeric[]": pa.list_(DECIMAL),
}
_ORDER = ("instrument_id", "time", "received_at", "epoch", "ordinal")
# Of the others few values repeat: without a dictionary they are written twice as fast, and smaller.
_REPEATED = ("instrument_id", "epoch", "ordinal", "ingestor", "symbol", "native_id")
_GROUP_BYTES = 32 << 20  # of a row group in memory: what is held at once does not depend on the day
_SORT_BYTES = 64 << 20  # of a day that is sorted here
_LEAST_ROW_BYTES = 80  # in memory; a day that has too many even of these is not tried
_BLOCK = 4 << 20
_READ_AS = {"timestamp with time zone": pa.int64(), "numeric[]": pa.string()}


class _Columns(NamedTuple):
    """What a file's columns are made of: those of the table, and an Arrow table of what instruments are called."""

    table: list[Column]
    names: Any


class Written(Struct):
    """What became of a month's partitions; a problem names the partition that could not be written."""

    month: str
    written: int = 0
    kept: int = 0
    rows: int = 0
    bytes: int = 0
    problems: list[str] = []


def export_parquet(source: Source, root: Path, month: Month, on_progress: Callable[[Progress], None]) -> Written:
    """Write the month's partitions whose digest has changed; the caller holds the archive's lock."""
    problems, lock = list[str](), threading.Lock()
    wanted = partitions(source.connection, month)
    known = {part.file: part for part in read_parts(root, month)}
    changed = [one for one in wanted if not _is_there(root, one, known.get(one.file))]
    lost = {one.file for one in changed if is_dropped(source.connection, one.channel, one.day, one.day)}
    problems += [
        f"{root / file}: not what the datalake had, whose rows of that day were dropped since" for file in lost
    ]
    stale = [one for one in changed if one.file not in lost]
    columns = {channel: columns_of(source.connection, channel) for channel in {one.channel for one in stale}}
    names = {exchange: _names(source.connection, exchange) for exchange in {one.exchange for one in stale}}

    def tell(progress: Progress) -> None:
        with lock:
            on_progress(progress)

    def write(connection: psycopg.Connection[Any], partition: Partition) -> None:
        path = root / partition.file
        of = _Columns(columns[partition.channel], names[partition.exchange])
        try:
            with connection.transaction():  # of its own, so that what fails leaves the next one whole
                _write(connection, partition, path, of, tell)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            with lock:
                problems.append(f"{path}: a value does not fit in 38 digits, 18 behind the point ({error})")

    in_parallel(stale, source.jobs, lambda: session_of(source, "parquet"), write)
    for one in stale:
        known.pop(one.file, None)
    parts = _parts(root, wanted, known, lost)
    if parts != read_parts(root, month):
        write_parts(root, month, source.snapshot, parts)
    return Written(
        month.name,
        written=len(stale) - len(problems) + len(lost),
        kept=len(wanted) - len(changed),
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
        problems=sorted(problems) + [problem for part in parts for problem in _problems(part)],
    )


def _is_there(root: Path, wanted: Partition, known: Part | None) -> bool:
    path = root / wanted.file
    return digest_within(path) == wanted.digest and (known is None or known.bytes == size_of(path))


def _parts(root: Path, wanted: list[Partition], known: dict[str, Part], lost: set[str]) -> list[Part]:
    """What is on disk of ``wanted``, and of what is ``lost`` the older content; what is ``known`` is not read again."""
    found = [(one, known.get(one.file) or _part(root, one.file)) for one in wanted]
    return [part for one, part in found if part is not None and (part.digest == one.digest or one.file in lost)]


def _part(root: Path, file: str) -> Part | None:
    """What a file says of itself; None where it is not there."""
    path = root / file
    digest = digest_within(path)
    if digest is None:
        return None
    metadata = pq.read_metadata(path)
    (at,) = [number for number in range(metadata.num_columns) if metadata.schema.column(number).path == "time"]
    bounds = [metadata.row_group(number).column(at).statistics for number in range(metadata.num_row_groups)]
    return Part(
        file=file,
        rows=metadata.num_rows,
        digest=digest,
        first_time=min((bound.min for bound in bounds), default=None),
        last_time=max((bound.max for bound in bounds), default=None),
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )


def _problems(part: Part) -> list[str]:
    if part.rows == part.digest.rows:
        return []
    return [
        f"{part.file}: {part.rows:,} rows written, but the digests count {part.digest.rows:,}: the file holds what the"
        " table holds; `cryptopip digest compare` names the hours"
    ]


def digest_within(path: Path) -> Digest | None:
    """That of the footer; None where there is no file that can be read."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    rows, value = metadata.get(b"cryptopip.rows"), metadata.get(b"cryptopip.hash")
    return Digest(int(rows), value.decode()) if rows is not None and value is not None else None


def _names(connection: psycopg.Connection[Any], exchange: str) -> Any:
    """A table with what the instruments of an exchange are called, which the rows of events do not say."""
    rows = connection.execute(
        "SELECT id, symbol, native_id FROM instruments WHERE exchange = %s ORDER BY id", [exchange]
    ).fetchall()
    schema = pa.schema([("id", pa.int32()), ("symbol", pa.string()), ("native_id", pa.string())])
    return pa.Table.from_arrays(
        [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)], schema=schema
    ).combine_chunks()


def _write(
    connection: psycopg.Connection[Any],
    partition: Partition,
    path: Path,
    columns: _Columns,
    on_progress: Callable[[Progress], None],
) -> None:
    for left in path.parent.glob(".*.tmp"):
        left.unlink()
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        fsync_folder(path.parent.parent)
    schema = pa.schema(
        [
            *((column.name, _TYPES[column.type]) for column in columns.table),
            ("symbol", pa.string()),
            ("native_id", pa.string()),
        ],
        metadata={"cryptopip.rows": str(partition.digest.rows), "cryptopip.hash": partition.digest.hash},
    )
    rows = 0
    with (
        closing(_sorted(connection, partition, columns)) as tables,
        replace_file(path) as file,
        pq.ParquetWriter(file, schema, **_encoding(schema)) as writer,
    ):
        for table in tables:
            writer.write_table(_of_schema(table, schema, columns.names), row_group_size=max(table.num_rows, 1))
            rows += table.num_rows
            on_progress(
                Progress(
                    f"{partition.day:%Y-%m-%d}",
                    f"{partition.exchange} {partition.channel}",
                    rows,
                    partition.digest.rows,
                )
            )


def _encoding(schema: Any) -> dict[str, Any]:
    """How the columns are written: by a dictionary where few values repeat, as differences where they count."""
    counting = {
        field.name: "DELTA_BYTE_ARRAY" if field.name == "trade_id" else "DELTA_BINARY_PACKED"
        for field in schema
        if field.name not in _REPEATED
        and (field.name == "trade_id" or pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type))
    }
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in _REPEATED if name in schema.names],
        "column_encoding": counting,
        "sorting_columns": [pq.SortingColumn(schema.get_field_index(name)) for name in ("instrument_id", "time")],
    }


def _sorted(connection: psycopg.Connection[Any], partition: Partition, columns: _Columns) -> Generator[Any]:
    """The rows in their order, as tables of one row group each.

    A day that fits is sorted here, which costs a tenth of what it costs the server; a larger one there.
    """
    whole = None
    if partition.digest.rows * _LEAST_ROW_BYTES <= _SORT_BYTES:
        whole = _whole(connection, _query(partition, columns, is_sorted=False), columns.table)
    if whole is None:
        yield from _grouped(connection, _query(partition, columns, is_sorted=True), columns.table)
    else:
        order = [(name, "ascending") for name in _ORDER if name in whole.column_names]
        whole = whole.take(pc.sort_indices(whole, sort_keys=order))
        rows = max(1, whole.num_rows * _GROUP_BYTES // max(1, whole.nbytes))
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows)


def _whole(connection: psycopg.Connection[Any], query: sql.Composed, columns: list[Column]) -> Any | None:
    """All rows as one table, None where they are too many for that."""
    held, size = [_table(b"", columns)], 0
    with connection.transaction() as savepoint, closing(copy_out(connection, query, _BLOCK)) as blocks:
        for block, _ in blocks:
            held.append(_table(block, columns))
            size += held[-1].nbytes
            if size > _SORT_BYTES:
                raise psycopg.Rollback(savepoint)
        return pa.concat_tables(held).combine_chunks()
    return None


def _grouped(connection: psycopg.Connection[Any], query: sql.Composed, columns: list[Column]) -> Generator[Any]:
    connection.execute("SET LOCAL work_mem = '64MB'")  # a sort in memory, where the day allows it
    held: list[Any] = []
    with closing(copy_out(connection, query, _BLOCK)) as blocks:
        for block, _ in blocks:
            held.append(_table(block, columns))
            if sum(one.nbytes for one in held) >= _GROUP_BYTES:
                yield pa.concat_tables(held).combine_chunks()
                held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _query(partition: Partition, columns: _Columns, *, is_sorted: bool) -> sql.Composed:
    def selected(column: Column) -> sql.Composed:
        name = sql.Identifier("t", column.name)
        if column.type == "timestamp with time zone":  # µs: numbers are written and read faster than times are
            return sql.SQL("(date_part('epoch', {}) * 1000000)::bigint").format(name)
        return sql.SQL("{}").format(name)

    there = {column.name for column in columns.table}
    order = sql.SQL(" ORDER BY ") + sql.SQL(", ").join(sql.Identifier("t", name) for name in _ORDER if name in there)
    return sql.SQL(
        "COPY (SELECT {columns} FROM {table} AS t WHERE t.time >= {day} AND t.time < {day}::timestamptz"
        " + interval '1 day' AND t.instrument_id = ANY ({ids}){order})"
        " TO STDOUT (FORMAT csv)"
    ).format(
        columns=sql.SQL(", ").join(map(selected, columns.table)),
        table=sql.Identifier(partition.channel),
        ids=sql.Literal(columns.names["id"].to_pylist()),
        day=sql.Literal(partition.day),
        order=order if is_sorted else sql.SQL(""),
    )


def _table(block: bytes | bytearray, columns: list[Column]) -> Any:
    """Whole rows of CSV as a table; times are numbers yet, and arrays their text."""
    types = {column.name: _READ_AS.get(column.type, _TYPES[column.type]) for column in columns}
    if not block:  # of which Arrow would say that it is no CSV
        return pa.schema(types.items()).empty_table()
    return pacsv.read_csv(
        pa.py_buffer(block),
        read_options=pacsv.ReadOptions(column_names=list(types), block_size=2 * len(block), use_threads=False),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,  # the empty text is no NULL
        ),
    )


def _of_schema(table: Any, schema: Any, names: Any) -> Any:
    """The table with the types that are written, and what its instruments are called."""
    at = pc.index_in(table["instrument_id"], value_set=names["id"])

    def column(field: Any) -> Any:
        if field.name in {"symbol", "native_id"}:
            return names[field.name].take(at)
        if pa.types.is_list(field.type):
            return pa.chunked_array([_decimals(chunk) for chunk in table[field.name].chunks], field.type)
        return table[field.name].cast(field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _decimals(texts: Any) -> Any:
    """Lists of decimals from PostgreSQL's text of numeric arrays, ``{1.5,2}``; there are no NULLs in them."""
    inner = pc.utf8_slice_codeunits(texts, 1, -1)
    split = pc.split_pattern(inner, ",")
    filled = pc.not_equal(inner, "")  # the empty array splits into one empty text
    lengths = pc.multiply(pc.list_value_length(split), pc.cast(filled, pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    flat = split.flatten()
    return pa.ListArray.from_arrays(offsets, flat.filter(pc.not_equal(flat, "")).cast(DECIMAL))
