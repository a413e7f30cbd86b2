"""The files that a month's events are cut into as Parquet, and the list of them: ``2026-11.parquet.json``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from collectors import __version__
from collectors.archive.database import Snapshot
from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import FORMAT, Digest
from collectors.archive.month import Month
from collectors.events import CHANNELS
from collectors.files import replace_file

FOLDER = "parquet"
FILE = "events.parquet"


class Partition(Struct, frozen=True):
    """One file: the events of an exchange's channel on a day (UTC), and their digest."""

    exchange: str
    channel: str
    day: datetime
    digest: Digest

    @property
    def file(self) -> str:
        """Its path below the archive's folder, as Hive names it."""
        return f"{FOLDER}/exchange={self.exchange}/channel={self.channel}/day={self.day:%Y-%m-%d}/{FILE}"


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A file that is on disk: ``file`` is its path below the archive's folder, times are those of its events, UTC."""

    file: str
    rows: int
    digest: Digest
    first_time: datetime | None
    last_time: datetime | None
    bytes: int
    sha256: str


class PartList(Struct, frozen=True, forbid_unknown_fields=True):
    """What a month's events are as Parquet; ``snapshot_at`` is when this was so."""

    format: int
    month: str
    database: str
    snapshot_at: datetime
    schema: str
    cryptopip: str
    files: list[Part]


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


def list_path(root: Path, month: Month) -> Path:
    """Beside the month's folder, since what reads Parquet would take it for data among the files."""
    return root / f"{month.name}.parquet.json"


def read_parts(root: Path, month: Month) -> list[Part]:
    """The files of a month, none where none were written; raises ArchiveError where the list cannot be read."""
    path = list_path(root, month)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=PartList)
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise ArchiveError(
            f"{path}: {error}: it is damaged or of another version; remove it, and `cryptopip archive parquet` makes it"
            " again from the files"
        ) from error
    return found.files


def write_parts(root: Path, month: Month, snapshot: Snapshot, files: list[Part]) -> None:
    """Put the list on disk, whole or not at all."""
    whole = PartList(
        format=FORMAT,
        month=month.name,
        database=snapshot.database,
        snapshot_at=snapshot.taken_at,
        schema=snapshot.schema,
        cryptopip=__version__,
        files=files,
    )
    with replace_file(list_path(root, month)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")
