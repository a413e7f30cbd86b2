"""Where digests come from: a datalake's table of them or its rows, a file, an archive, journals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import structlog
from msgspec import Struct
from psycopg import sql

from collectors.datalake import missing_relations
from collectors.digests.archive import digests_of_archive
from collectors.digests.model import Digest, read_digests
from collectors.errors import CryptopipError, UsageError
from collectors.events import CHANNELS, Channel
from collectors.rebuild import rebuild
from collectors.sync.channels import ChannelSpec
from collectors.sync.identities import specs

ROWS = "rows:"
"""In front of a conninfo: compute from the rows themselves instead of trusting the table ``digests``."""
ARCHIVE = "archive:"
"""In front of a folder: compute from the files of an archive's months."""
JOURNAL = "journal:"
"""In front of folders, separated as in PATH: of what their journals, merged, come to."""
_NEEDED = ("instruments", "digests", "dropped_chunks", *CHANNELS)


class Window(Struct, frozen=True):
    """Hours, exchange and channel to look at; ``since`` and ``until`` (excluded) are full hours, None is unbounded."""

    since: datetime | None = None
    until: datetime | None = None
    exchange: str | None = None
    channel: str | None = None

    def __post_init__(self) -> None:
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and moment.timestamp() % 3600:
                raise UsageError(f"{name} is {moment.isoformat()}, expected a full hour: digests are kept per hour")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise UsageError(f"until {self.until.isoformat()} is not after since {self.since.isoformat()}")
        if self.channel is not None and self.channel not in CHANNELS:
            raise UsageError(f"channel {self.channel!r}, expected one of {', '.join(sorted(CHANNELS))}")

    def holds(self, digest: Digest) -> bool:
        """Whether a digest lies in it."""
        return (
            (self.since is None or digest.hour >= self.since)
            and (self.until is None or digest.hour < self.until)
            and self.exchange in (None, digest.exchange)
            and self.channel in (None, digest.channel)
        )


class Workshop(Struct, frozen=True):
    """Conninfos of two databases to merge journals in: see ``rebuild``."""

    datalake: str
    scratch: str


class Source(Struct, frozen=True):
    """One side of a comparison: the path of an exported file, a conninfo, or one of the prefixes and what it is of."""

    text: str
    workshop: Workshop | None = None

    def digests(self, window: Window) -> Iterator[Digest]:
        """In the order of ``Digest.key``; one consistent state of a database. Raises CryptopipError."""
        if self.text.startswith(ROWS):
            return _of_database(self.text.removeprefix(ROWS), window, from_rows=True)
        if self.text.startswith(ARCHIVE):
            return filter(
                window.holds,
                digests_of_archive(
                    Path(self.text.removeprefix(ARCHIVE)),
                    since=window.since,
                    until=window.until,
                    channel=window.channel,
                ),
            )
        if self.text.startswith(JOURNAL):
            return _of_journals(self.text.removeprefix(JOURNAL), window, self.workshop)
        if "=" in self.text or "://" in self.text:
            return _of_database(self.text, window, from_rows=False)
        return _of_file(Path(self.text), window)


def _of_file(path: Path, window: Window) -> Iterator[Digest]:
    if not path.is_file():
        raise UsageError(
            f"{path} is no file; expected one of `cryptopip digest export`, a conninfo as in"
            f" 'host=db1 dbname=datalake', {ROWS} and a conninfo, {ARCHIVE} and a folder, or {JOURNAL} and folders"
        )
    with path.open("rb") as file:
        for digest in read_digests(file, str(path)):
            if window.holds(digest):
                yield digest


def _of_journals(paths: str, window: Window, workshop: Workshop | None) -> Iterator[Digest]:
    if workshop is None:
        raise UsageError(
            "journals have digests only once they are merged: give --rebuild-into, a migrated datalake with instruments"
            " and else empty, and --scratch, an empty ingestor database"
        )
    folders = [Path(path) for path in paths.split(os.pathsep)]
    if missing := [str(path) for path in folders if not path.is_dir()]:
        raise UsageError(f"{', '.join(missing)}: no such folder, expected one with journals")
    report = rebuild(folders, workshop.datalake, workshop.scratch)
    if not report.is_whole:
        structlog.get_logger().warning(
            "not every frame of the journals could be merged",
            parked=report.parked,
            damages=report.damages,
            missing=report.missing,
            conflicts=report.conflicts,
        )
    yield from _of_database(workshop.datalake, window, from_rows=False)


def _of_database(conninfo: str, window: Window, *, from_rows: bool) -> Iterator[Digest]:
    try:
        with psycopg.connect(conninfo, application_name="cryptopip digest", client_encoding="UTF8") as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            _check_schema(connection)
            exchanges = [row[0] for row in connection.execute("SELECT DISTINCT exchange FROM instruments ORDER BY 1")]
            for channel in sorted(CHANNELS):
                if window.channel in (None, channel):
                    inner = _of_rows(channel, exchanges, window) if from_rows else _kept(channel, window)
                    yield from _rows(connection, _named(channel, inner, window))
    except psycopg.Error as error:
        raise CryptopipError(f"cannot read digests: {str(error).strip()}") from error


def _check_schema(connection: psycopg.Connection[Any]) -> None:
    if missing := missing_relations(connection, _NEEDED):
        raise CryptopipError(
            f"the database {connection.info.dbname} has no {', '.join(missing)}, so it is no datalake of this version:"
            " give another conninfo, or run playbooks/migrate.yml"
        )


def _rows(connection: psycopg.Connection[Any], statement: sql.Composed) -> Iterator[Digest]:
    with connection.cursor(name="digests") as cursor:
        cursor.itersize = 10_000
        cursor.execute(statement)
        for row in cursor:
            yield Digest(*row)


def _times(column: sql.Identifier, window: Window) -> sql.Composed:
    """That a moment lies in the window."""
    conditions = [sql.SQL("true").format()]
    if window.since:
        conditions.append(sql.SQL("{} >= {}").format(column, sql.Literal(window.since)))
    if window.until:
        conditions.append(sql.SQL("{} < {}").format(column, sql.Literal(window.until)))
    return sql.SQL(" AND ").join(conditions)


def _kept(channel: Channel, window: Window) -> sql.Composed:
    """Instrument, hour, rows and hash of the table ``digests``."""
    return sql.SQL(
        "SELECT instrument_id, hour, rows, hash FROM digests AS t WHERE t.channel = {channel} AND {times}"
    ).format(channel=sql.Literal(channel), times=_times(sql.Identifier("t", "hour"), window))


def _of_rows(channel: Channel, exchanges: list[str], window: Window) -> sql.Composed:
    """The same of the rows themselves: hour and hash as a merge adds them to the table; the text is the exchange's.

    Of hours that were dropped since, what was kept of them is taken on trust.
    """
    by_text: dict[str, tuple[ChannelSpec, list[str]]] = {}
    for exchange in exchanges:
        (spec,) = (spec for spec in specs(exchange) if spec.name == channel)
        by_text.setdefault(spec.text, (spec, []))[1].append(exchange)
    if not by_text:
        return _kept(channel, window)  # without instruments there are neither rows nor digests
    dropped = sql.SQL(
        "{kept} AND EXISTS (SELECT FROM dropped_chunks AS c WHERE c.channel = {channel} AND c.during @> t.hour)"
    ).format(kept=_kept(channel, window), channel=sql.Literal(channel))
    of_rows = (
        sql.SQL(
            "SELECT t.instrument_id, time_bucket('1 hour', t.time) AS hour, count(*) AS rows,"
            " sum(event_hash({text})) AS hash FROM {table} AS t"
            " WHERE {times} AND {is_received} AND NOT EXISTS"
            " (SELECT FROM dropped_chunks AS c WHERE c.channel = {channel} AND c.during @> t.time)"
            " AND t.instrument_id IN (SELECT id FROM instruments WHERE exchange = ANY ({exchanges}))"
            " GROUP BY t.instrument_id, time_bucket('1 hour', t.time)"
        ).format(
            text=sql.SQL(spec.text),
            table=sql.Identifier(channel),
            channel=sql.Literal(channel),
            times=_times(sql.Identifier("t", "time"), window),
            is_received=sql.SQL("NOT t.is_derived" if channel == "quotes" else "true"),
            exchanges=sql.Literal(of),
        )
        for spec, of in by_text.values()
    )
    return sql.SQL(" UNION ALL ").join([*of_rows, dropped])


def _named(channel: Channel, inner: sql.Composed, window: Window) -> sql.Composed:
    """The fields of ``Digest``, in the order of its key."""
    of_exchange = sql.SQL("true").format()
    if window.exchange is not None:
        of_exchange = sql.SQL("i.exchange = {}").format(sql.Literal(window.exchange))
    return sql.SQL(
        "SELECT {channel}, d.instrument_id, d.hour, d.rows, d.hash::text,"
        " coalesce(i.exchange, '?'), coalesce(i.native_id, '?')"
        " FROM ({inner}) AS d LEFT JOIN instruments AS i ON i.id = d.instrument_id WHERE {of_exchange}"
        " ORDER BY d.instrument_id, d.hour"
    ).format(channel=sql.Literal(channel), inner=inner, of_exchange=of_exchange)
