"""``manifest.json`` of a month: what its files hold, written when all of them are on disk."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.archive.errors import ArchiveError
from collectors.files import replace_file

MANIFEST = "manifest.json"
PROGRESS = ".progress.json"
"""The same while a month is written: files that are whole already, to go on from after a crash."""
FORMAT = 1


class Digest(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows, and a sum over them that does not depend on their order: of events that of their hourly digests."""

    rows: int
    hash: str


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of the file, with the type it has in the database."""

    name: str
    type: str


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One table's file.

    ``rows`` were counted while writing; ``digest`` is what the database said of them in the same snapshot. Times are
    those of the first and last event, UTC, none for tables of another kind. ``bytes`` and ``sha256`` are of the file
    as it lies there, ``csv_bytes`` of what is in it.
    """

    table: str
    file: str
    rows: int
    digest: Digest
    columns: list[Column]
    first_time: datetime | None
    last_time: datetime | None
    bytes: int
    csv_bytes: int
    sha256: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a month's folder holds."""

    format: int
    month: str
    database: str
    snapshot_at: datetime
    schema: str
    cryptopip: str
    entries: list[Entry]

    def entry(self, table: str) -> Entry | None:
        """That of a table."""
        return next((entry for entry in self.entries if entry.table == table), None)


_DECODER = msgspec.json.Decoder(Manifest)


def write_manifest(folder: Path, name: str, manifest: Manifest) -> None:
    """Put it on disk, whole or not at all."""
    with replace_file(folder / name) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def read_manifest(folder: Path, name: str = MANIFEST) -> Manifest | None:
    """That of a month's folder, None where there is none; raises ArchiveError where it cannot be read."""
    path = folder / name
    try:
        manifest = _DECODER.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ArchiveError(
            f"{path}: {error}: it is damaged or of another version; bring it back from the off-site copy, or remove it"
            " and export the month again"
        ) from error
    if manifest.format != FORMAT:
        raise ArchiveError(f"{path} has format {manifest.format}, expected {FORMAT}: use the release that wrote it")
    return manifest
