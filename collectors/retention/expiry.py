"""Dropping from the datalake months that a table is not to keep longer, and that the archive provably holds.

The contract. A month of a channel goes, chunk by chunk, where

1. it ended more days ago than its table keeps;
2. the archive holds the table's month with the digest that the datalake has now, in a file of the manifest's size, and
   the month was verified since it was written (``protections``);
3. nothing is still to be done with its rows: no bars to be made, no epoch that was loaded again and waits.

The digests stay, and each chunk is noted in ``dropped_chunks`` in the transaction that drops it: exports leave the
month's files as they are, comparisons leave its rows out, and sync counts rows that come late instead of merging them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import structlog
from msgspec import Struct, field

from collectors.archive.database import digest_of
from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import PROGRESS, read_manifest
from collectors.archive.month import Month
from collectors.archive.tables import BY_NAME
from collectors.config import Expiry
from collectors.datalake import missing_relations
from collectors.errors import CryptopipError
from collectors.events import CHANNELS, Channel
from collectors.sync import target

_NEEDED = (
    "dropped_chunks",
    "protections",
    "digests",
    "supersessions",
    "connections",
    "ohlcv_hours",
    "book_hours",
    *CHANNELS,
)
_LATE = timedelta(days=1)


Range = tuple[datetime, datetime]


class Old(Struct, frozen=True):
    """A month of a channel that is older than its table keeps, with the chunks it is in; bytes on disk."""

    channel: Channel
    month: Month
    chunks: list[Range]
    bytes: int


class Judged(Struct, frozen=True):
    """What became of a month that is old enough; ``held`` says why it stays, empty for what went (would go)."""

    channel: str
    month: str
    bytes: int
    held: list[str]


class Expired(Struct):
    """What a run did."""

    checked_only: bool
    dropped: list[Judged] = field(default_factory=list)
    kept: list[Judged] = field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes of what went."""
        return sum(one.bytes for one in self.dropped)


def expire(
    conninfo: str, settings: Expiry, *, check: bool = False, on_month: Callable[[Judged], None] = lambda _: None
) -> Expired:
    """Drop what may go, the oldest first, or with ``check`` only say what would; a chunk a transaction.

    Sync waits for as long as a chunk takes. A run that was killed is completed by the next. Raises CryptopipError,
    psycopg.Error, OSError.
    """
    report = Expired(check)
    with _connect(conninfo) as lake:
        for old in old_months(lake, settings):
            held = why_kept(lake, settings.archive, old) if check else _drop(lake, settings.archive, old)
            judged = Judged(old.channel, old.month.name, old.bytes, held)
            (report.kept if held else report.dropped).append(judged)
            if not held and not check:
                structlog.get_logger().info("dropped", channel=old.channel, month=old.month.name, bytes=old.bytes)
            on_month(judged)
    return report


def old_months(lake: psycopg.Connection[Any], settings: Expiry) -> list[Old]:
    """The months that ended before what their table keeps and of which there are chunks, the oldest first."""
    found: dict[tuple[Month, Channel], list[tuple[Range, int]]] = {}
    for channel in CHANNELS:
        days = settings.days.get(channel)
        if days is None:
            continue
        row = lake.execute("SELECT clock_timestamp() - make_interval(days => %s)", [days]).fetchone()
        assert row is not None
        for start, end, size in lake.execute(_CHUNKS, {"table": channel}).fetchall():
            if Month.of(start).end <= row[0]:
                found.setdefault((Month.of(start), channel), []).append(((start, end), size))
    return [
        Old(channel, month, [chunk for chunk, _ in chunks], sum(size for _, size in chunks))
        for (month, channel), chunks in sorted(found.items())
    ]


_CHUNKS = """
SELECT c.range_start, c.range_end, coalesce(s.total_bytes, 0)
FROM timescaledb_information.chunks AS c
LEFT JOIN chunks_detailed_size(%(table)s::text::regclass) AS s
    ON s.chunk_schema = c.chunk_schema AND s.chunk_name = c.chunk_name
WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %(table)s::text
ORDER BY c.range_start
"""


def _drop(lake: psycopg.Connection[Any], archive: Path, old: Old) -> list[str]:
    """Drop the month's chunks, unless something holds it; what does. It is looked at again before each of them."""
    for start, end in old.chunks:
        try:
            with target.only_one(lake, wait=True), lake.transaction():
                if held := why_kept(lake, archive, old):
                    return held
                lake.execute("SELECT drop_chunk(%s, tstzrange(%s, %s))", [old.channel, start, end])
        except psycopg.errors.LockNotAvailable:
            return [f"somebody is reading what is of {start:%Y-%m-%d}: the next run drops the rest"]
    return []


def why_kept(lake: psycopg.Connection[Any], archive: Path, old: Old) -> list[str]:
    """Why a month stays, empty where it may go."""
    held = [problem] if (problem := _unarchived(lake, archive, old.month, old.channel)) else []
    if any(end > old.month.end for _, end in old.chunks):
        held.append("a chunk of it reaches into the next month")
    if old.channel == "trades":
        row = lake.execute(
            "SELECT EXISTS (SELECT FROM ohlcv_hours WHERE state <> 'settled' AND hour >= %s AND hour < %s)",
            [old.month.start, old.month.end],
        ).fetchone()
        if row == (True,):
            held.append("bars of its trades are still to be made: cryptopip derive")
    if old.channel == "book_events":
        row = lake.execute(
            "SELECT EXISTS (SELECT FROM book_hours WHERE hour >= %s AND hour < %s)", [old.month.start, old.month.end]
        ).fetchone()
        if row == (True,):
            held.append("books at its full hours are still to be made: cryptopip derive")
    row = lake.execute(
        "SELECT EXISTS (SELECT FROM supersessions AS s INNER JOIN connections AS c USING (incarnation, stream, epoch)"
        " WHERE s.finished_at IS NULL AND c.opened_at < %s AND c.alive_until >= %s)",
        [old.month.end + _LATE, old.month.start - _LATE],
    ).fetchone()
    if row == (True,):
        held.append("rows of an epoch that was loaded again are still to be taken out of the history")
    return held


def _unarchived(lake: psycopg.Connection[Any], archive: Path, month: Month, channel: Channel) -> str | None:
    """What keeps the archive's month from standing in for the datalake's table."""
    folder = archive / month.name
    try:
        manifest = read_manifest(folder)
    except ArchiveError as error:
        return f"the archive cannot be read: {error}"
    entry = None if manifest is None else manifest.entry(channel)
    if entry is None or (folder / PROGRESS).exists():
        return f"it is not whole in the archive {archive}: export it"
    if entry.digest != digest_of(lake, BY_NAME[channel], month):
        return f"the archive {archive} holds another state of it: export it again"
    file = folder / entry.file
    if not file.is_file() or file.stat().st_size != entry.bytes:
        return f"{file} is not of the size that its manifest says: bring it back, or export the month again"
    row = lake.execute(
        "SELECT EXISTS (SELECT FROM protections WHERE source = 'archive' AND name = %s AND verified_at > %s)",
        [month.name, manifest.snapshot_at if manifest else None],
    ).fetchone()
    return (
        None
        if row == (True,)
        else "the archive was not verified since it was written: cryptopip archive verify --protect"
    )


def _connect(conninfo: str) -> psycopg.Connection[Any]:
    try:
        connection = psycopg.connect(
            conninfo, application_name="cryptopip expire", client_encoding="UTF8", autocommit=True
        )
    except psycopg.Error as error:
        raise CryptopipError(f"cannot connect to the datalake: {str(error).strip()}") from error
    if missing := missing_relations(connection, _NEEDED):
        connection.close()
        raise CryptopipError(f"the datalake has no {', '.join(missing)}: migrate it first (playbook migrate)")
    # A chunk in use is dropped by the next run; whoever waits for its lock would hold up sync behind it.
    connection.execute("SET timezone = 'UTC'; SET lock_timeout = '5s'; SET client_connection_check_interval = '2s'")
    return connection
