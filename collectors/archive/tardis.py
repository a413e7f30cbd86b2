"""A month of events as Tardis' own daily CSV.gz files, for programs that read those.

``tardis/EXCHANGE/TYPE/2026/11/01/SYMBOL.csv.gz``: the events whose time lies in that day (UTC), in the order in which
they were received. Times are µs since 1970, UTC. What differs from Tardis: files/sql/datalake/0017_tardis.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.archive.database import Source, session_of
from collectors.archive.errors import ArchiveError
from collectors.archive.export import Progress
from collectors.archive.gzip_csv import GzipWriter, copy_rows
from collectors.archive.manifest import Digest
from collectors.archive.month import Month
from collectors.archive.verify import size_of
from collectors.archive.workers import in_parallel
from collectors.datalake import is_dropped, missing_relations
from collectors.files import fsync_folder, replace_file

INDEX = "index.json"
_COMMON = ("exchange", "symbol", "timestamp", "local_timestamp")


class _Type(Struct, frozen=True):
    """One of Tardis' data types: its columns behind the common ones, and its rows."""

    name: str
    columns: tuple[str, ...]
    query: str


def _of_view(view: str, columns: tuple[str, ...]) -> str:
    names = ", ".join(f'v."{column}"' for column in (*_COMMON, *columns))
    return (
        f"SELECT {names} FROM {view} AS v WHERE v.instrument_id = ANY ({{ids}}) AND v.time >= {{day}}"  # noqa: S608
        " AND v.time < {day}::timestamptz + interval '1 day'"
        f" ORDER BY v.local_timestamp, v.timestamp, {names}"
    )


_TRADE = ("id", "side", "price", "amount")
_QUOTE = ("ask_amount", "ask_price", "bid_price", "bid_amount")
_LEVEL = ("is_snapshot", "side", "price", "amount")
_TICKER = (
    "funding_timestamp",
    "funding_rate",
    "predicted_funding_rate",
    "open_interest",
    "last_price",
    "index_price",
    "mark_price",
)
# Not the view: it does not tell which of two events that came at once was first, nor the order of levels in an event.
_LEVELS = """
SELECT
    i.exchange, i.native_id, microseconds(t.time), microseconds(t.received_at),
    t.is_snapshot::text, l.side, l.price, l.amount
FROM book_events AS t
INNER JOIN instruments AS i ON i.id = t.instrument_id
CROSS JOIN LATERAL (
    SELECT 'ask' AS side, a.price, a.amount, a.n
    FROM unnest(t.ask_prices, t.ask_amounts) WITH ORDINALITY AS a (price, amount, n)
    UNION ALL
    SELECT 'bid', b.price, b.amount, b.n
    FROM unnest(t.bid_prices, t.bid_amounts) WITH ORDINALITY AS b (price, amount, n)
) AS l
WHERE
    t.instrument_id = ANY ({ids}) AND t.time >= {day} AND t.time < {day}::timestamptz + interval '1 day'
ORDER BY t.received_at, t.time, t.last_id, t.ordinal, l.side, l.n
"""
TYPES = {
    "trades": _Type("trades", _TRADE, _of_view("tardis_trades", _TRADE)),
    "quotes": _Type("quotes", _QUOTE, _of_view("tardis_quotes", _QUOTE)),
    "book_events": _Type("incremental_book_L2", _LEVEL, _LEVELS),
    "derivatives": _Type("derivative_ticker", _TICKER, _of_view("tardis_derivative_ticker", _TICKER)),
    "liquidations": _Type("liquidations", _TRADE, _of_view("tardis_liquidations", _TRADE)),
}
"""By channel."""
_VIEWS = ("tardis_trades", "tardis_quotes", "tardis_derivative_ticker", "tardis_liquidations")


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a day's folder: ``digest`` is that of the events in it, ``rows`` its lines but the header."""

    file: str
    native_id: str
    digest: Digest
    rows: int
    bytes: int
    sha256: str


class Written(Struct):
    """What became of a month's files; a problem names what could not be written."""

    month: str
    written: int = 0
    kept: int = 0
    bytes: int = 0
    problems: list[str] = []

    def add(self, other: Written) -> None:
        """What became of some more files."""
        self.written += other.written
        self.kept += other.kept
        self.bytes += other.bytes
        self.problems += other.problems


class DayFile(Struct, frozen=True):
    """The events of an instrument's channel on a day (UTC): what one file holds."""

    exchange: str
    channel: str
    day: datetime
    native_id: str
    ids: list[int]
    digest: Digest

    def folder(self, root: Path) -> Path:
        """That of its day, below the archive's."""
        name = TYPES[self.channel].name
        return root / "tardis" / self.exchange / name / f"{self.day:%Y}" / f"{self.day:%m}" / f"{self.day:%d}"

    @property
    def file(self) -> str:
        """As Tardis writes a symbol that a file cannot be named after."""
        return re.sub(r"[/:\\\s]", "-", self.native_id) + ".csv.gz"


def export_tardis(source: Source, root: Path, month: Month, on_progress: Callable[[Progress], None]) -> Written:
    """Write the month's files whose events have changed; the caller holds the archive's lock."""
    if missing := missing_relations(source.connection, _VIEWS):
        raise ArchiveError(f"the datalake has no {', '.join(missing)}: run playbooks/migrate.yml")
    total, lock = Written(month.name), threading.Lock()

    def tell(progress: Progress) -> None:
        with lock:
            on_progress(progress)

    def export(connection: psycopg.Connection[Any], wanted: list[DayFile]) -> None:
        result = _export_day(connection, wanted[0].folder(root), wanted, tell)
        with lock:
            total.add(result)

    days = [list(found) for _, found in groupby(day_files(source.connection, month), lambda one: one.folder(root))]
    in_parallel(days, source.jobs, lambda: session_of(source, "tardis"), export)
    total.problems.sort()
    return total


def day_files(connection: psycopg.Connection[Any], month: Month) -> Iterator[DayFile]:
    """Those that have events, as the digests say."""
    rows = connection.execute(
        "SELECT i.exchange, d.channel, date_trunc('day', d.hour, 'UTC') AS day, i.native_id,"
        " array_agg(DISTINCT i.id), sum(d.rows)::bigint, sum(d.hash)::text"
        " FROM digests AS d INNER JOIN instruments AS i ON i.id = d.instrument_id"
        " WHERE d.hour >= %s AND d.hour < %s AND d.channel = ANY (%s)"
        " GROUP BY 1, 2, 3, 4 HAVING sum(d.rows) > 0 ORDER BY 1, 2, 3, 4",
        [month.start, month.end, list(TYPES)],
    )
    for exchange, channel, day, native_id, ids, count, value in rows:
        yield DayFile(exchange, channel, day, native_id, ids, Digest(count, value))


def _export_day(
    connection: psycopg.Connection[Any],
    folder: Path,
    wanted: list[DayFile],
    on_progress: Callable[[Progress], None],
) -> Written:
    result = Written("")
    there, files, seen = index_of(folder), list[File](), dict[str, str]()
    _make(folder)
    for done, one in enumerate(wanted, 1):
        if one.file in seen:
            result.problems.append(
                f"{folder / one.file} is that of {seen[one.file]}: {one.native_id} would have the same name and"
                " is left out"
            )
            continue
        seen[one.file] = one.native_id
        known = there.get(one.file)
        if known and known.digest == one.digest and size_of(folder / one.file) == known.bytes:
            result.kept += 1
            files.append(known)
        elif is_dropped(connection, one.channel, one.day, one.day):
            result.problems.append(f"{folder / one.file}: not what the datalake had, whose rows were dropped since")
            if known is None:
                continue
            files.append(known)
        else:
            files.append(_write(connection, folder, one))
            result.written += 1
        result.bytes += files[-1].bytes
        on_progress(Progress(f"{one.day:%Y-%m-%d}", f"{one.exchange} {TYPES[one.channel].name}", done, len(wanted)))
    if files != list(there.values()):
        with replace_file(folder / INDEX) as file:
            file.write(msgspec.json.format(msgspec.json.encode(files), indent=1) + b"\n")
    return result


def _write(connection: psycopg.Connection[Any], folder: Path, wanted: DayFile) -> File:
    kind = TYPES[wanted.channel]
    query = sql.SQL("COPY (" + kind.query + ") TO STDOUT (FORMAT csv)").format(
        ids=sql.Literal(wanted.ids), day=sql.Literal(wanted.day)
    )
    with replace_file(folder / wanted.file) as file:
        writer = GzipWriter(file)
        writer.write(",".join((*_COMMON, *kind.columns)).encode() + b"\n")
        rows = copy_rows(connection, query, writer, lambda _: None)
        writer.finish()
    return File(wanted.file, wanted.native_id, wanted.digest, rows, writer.bytes, writer.sha256)


def index_of(folder: Path) -> dict[str, File]:
    """What is known of a day's files; nothing where the index is not there or cannot be read: then all are written."""
    try:
        files = msgspec.json.decode((folder / INDEX).read_bytes(), type=list[File])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return {file.file: file for file in files}


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        fsync_folder(folder.parent)
    for left in folder.glob(".*.tmp"):
        left.unlink()
