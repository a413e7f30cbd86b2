"""A month of events as Parquet, partitioned by exchange, channel and day, readable as it is by what reads Parquet.

``parquet/exchange=binance/channel=trades/day=2026-11-01/events.parquet``: zstd, sorted by instrument and time; numbers
are decimals of 38 digits, 18 of them behind the point. The footer holds the digest of the rows, by which a change is
seen.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv as pacsv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from msgspec import Struct
from psycopg import sql

from collectors.archive.database import columns_of
from collectors.archive.export import Progress
from collectors.archive.manifest import Column, Digest
from collectors.archive.month import Month
from collectors.datalake import is_dropped
from collectors.events import CHANNELS
from collectors.files import fsync_folder, replace_file

FILE = "events.parquet"
DECIMAL = pa.decimal128(38, 18)
_TIME = pa.timestamp("us", "UTC")
_TYPES = {
    "timestamp with time zone": pa.int64(),  # µs, which become times below: Arrow reads numbers faster than text
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "smallint": pa.int16(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "numeric": DECIMAL,
    "numeric[]": pa.string(),
}
_ORDER = ("instrument_id", "time", "received_at", "epoch", "ordinal")
_GROUP_BYTES = 32 << 20  # of a row group in memory: what is held at once does not depend on the day
_BLOCK = 4 << 20


class Partition(Struct, frozen=True):
    """One file: the events of an exchange's channel on a day (UTC), and their digest."""

    exchange: str
    channel: str
    day: datetime
    digest: Digest

    def folder(self, root: Path) -> Path:
        """Its folder below the archive's, as Hive names it."""
        return root / "parquet" / f"exchange={self.exchange}" / f"channel={self.channel}" / f"day={self.day:%Y-%m-%d}"


class Written(Struct):
    """What became of a month's partitions; a problem names the partition that could not be written."""

    month: str
    written: int = 0
    kept: int = 0
    rows: int = 0
    bytes: int = 0
    problems: list[str] = []


def export_parquet(
    connection: psycopg.Connection[Any], root: Path, month: Month, on_progress: Callable[[Progress], None]
) -> Written:
    """Write the month's partitions whose digest has changed; the caller holds the archive's lock and a snapshot."""
    result = Written(month.name)
    for partition in partitions(connection, month):
        path = partition.folder(root) / FILE
        if digest_within(path) == partition.digest:
            result.kept += 1
        elif is_dropped(connection, partition.channel, partition.day, partition.day):
            result.problems.append(f"{path}: not what the datalake had, whose rows of that day were dropped since")
            continue
        else:
            try:
                _write(connection, partition, path, on_progress)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                result.problems.append(f"{path}: a value does not fit in 38 digits, 18 behind the point ({error})")
                continue
            result.written += 1
        result.rows += partition.digest.rows
        result.bytes += path.stat().st_size
    return result


def partitions(connection: psycopg.Connection[Any], month: Month) -> list[Partition]:
    """Those that have rows, as the digests say."""
    rows = connection.execute(
        "SELECT i.exchange, d.channel, date_trunc('day', d.hour, 'UTC') AS day, sum(d.rows)::bigint, sum(d.hash)::text"
        " FROM digests AS d INNER JOIN instruments AS i ON i.id = d.instrument_id"
        " WHERE d.hour >= %s AND d.hour < %s AND d.channel = ANY (%s)"
        " GROUP BY 1, 2, 3 HAVING sum(d.rows) > 0 ORDER BY 1, 2, 3",
        [month.start, month.end, list(CHANNELS)],
    )
    return [Partition(row[0], row[1], row[2], Digest(row[3], row[4])) for row in rows]


def digest_within(path: Path) -> Digest | None:
    """That of the footer; None where there is no file that can be read."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    rows, value = metadata.get(b"cryptopip.rows"), metadata.get(b"cryptopip.hash")
    return Digest(int(rows), value.decode()) if rows is not None and value is not None else None


def _write(
    connection: psycopg.Connection[Any], partition: Partition, path: Path, on_progress: Callable[[Progress], None]
) -> None:
    columns = columns_of(connection, partition.channel)
    for left in path.parent.glob(".*.tmp"):
        left.unlink()
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        fsync_folder(path.parent.parent)
    schema = pa.schema(
        [*(_field(column) for column in columns), ("symbol", pa.string()), ("native_id", pa.string())],
        metadata={"cryptopip.rows": str(partition.digest.rows), "cryptopip.hash": partition.digest.hash},
    )
    order = [pq.SortingColumn(schema.get_field_index(name)) for name in ("instrument_id", "time")]
    # Of the others few values repeat: without a dictionary they are written twice as fast, and smaller.
    repeated = [
        name
        for name in ("instrument_id", "epoch", "ordinal", "ingestor", "symbol", "native_id")
        if name in schema.names
    ]
    rows = 0
    connection.execute("SET LOCAL work_mem = '64MB'")  # a sort in memory, where the day allows it
    with (
        connection.cursor().copy(_query(partition, columns)) as copy,
        replace_file(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated, sorting_columns=order) as writer,
    ):
        for table in _tables((bytes(piece) for piece in copy), columns, schema):
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
            rows += table.num_rows
            on_progress(
                Progress(
                    f"{partition.day:%Y-%m-%d}",
                    f"{partition.exchange} {partition.channel}",
                    rows,
                    partition.digest.rows,
                )
            )


def _field(column: Column) -> Any:
    if column.type == "numeric[]":
        return pa.field(column.name, pa.list_(DECIMAL))
    return pa.field(column.name, _TIME if column.type == "timestamp with time zone" else _TYPES[column.type])


def _query(partition: Partition, columns: list[Column]) -> sql.Composed:
    def selected(column: Column) -> sql.Composed:
        name = sql.Identifier("t", column.name)
        if column.type == "timestamp with time zone":
            return sql.SQL("(date_part('epoch', {}) * 1000000)::bigint").format(name)
        return sql.SQL("{}").format(name)

    return sql.SQL(
        "COPY (SELECT {columns}, i.symbol, i.native_id FROM {table} AS t INNER JOIN instruments AS i"
        " ON i.id = t.instrument_id AND i.exchange = {exchange} WHERE t.time >= {day}"
        " AND t.time < {day}::timestamptz + interval '1 day' ORDER BY {order}) TO STDOUT (FORMAT csv)"
    ).format(
        columns=sql.SQL(", ").join(map(selected, columns)),
        table=sql.Identifier(partition.channel),
        exchange=sql.Literal(partition.exchange),
        day=sql.Literal(partition.day),
        order=sql.SQL(", ").join(sql.Identifier("t", name) for name in _ORDER),
    )


def _tables(pieces: Iterator[bytes], columns: list[Column], schema: Any) -> Iterator[Any]:
    """The rows as tables of one row group each."""
    types = {column.name: _TYPES[column.type] for column in columns} | {"symbol": pa.string(), "native_id": pa.string()}
    source = _Stream(pieces)
    if source.is_empty():
        return
    batches = pacsv.open_csv(
        io.BufferedReader(source, _BLOCK),
        read_options=pacsv.ReadOptions(column_names=list(types), block_size=_BLOCK),
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
    held: list[Any] = []
    for batch in batches:
        held.append(
            pa.RecordBatch.from_arrays([_of_type(batch[field.name], field.type) for field in schema], schema=schema)
        )
        if sum(one.nbytes for one in held) >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _of_type(column: Any, kind: Any) -> Any:
    return _decimals(column) if pa.types.is_list(kind) else column.cast(kind)


def _decimals(texts: Any) -> Any:
    """Lists of decimals from PostgreSQL's text of numeric arrays, ``{1.5,2}``; there are no NULLs in them."""
    inner = pc.utf8_slice_codeunits(texts, 1, -1)
    split = pc.split_pattern(inner, ",")
    filled = pc.not_equal(inner, "")  # the empty array splits into one empty text
    lengths = pc.multiply(pc.list_value_length(split), pc.cast(filled, pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    flat = split.flatten()
    return pa.ListArray.from_arrays(offsets, flat.filter(pc.not_equal(flat, "")).cast(DECIMAL))


class _Stream(io.RawIOBase):
    """The messages of a COPY as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = next(pieces, b"")

    def is_empty(self) -> bool:
        """Whether nothing comes at all, of which Arrow would say that it is no CSV."""
        return not self._rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """As much as is asked for, but at the end."""
        parts, size, wanted = [self._rest], len(self._rest), len(buffer)
        while size < wanted and (piece := next(self._pieces, b"")):
            parts.append(piece)
            size += len(piece)
        joined = b"".join(parts)
        taken, self._rest = joined[:wanted], joined[wanted:]
        buffer[: len(taken)] = taken
        return len(taken)
