"""The restore journal: what must be known to take back what a restore changed, on disk before anything changes.

One JSON file outside PGDATA. It is written beside its place, synced and renamed, and its folder synced, so that a
crash leaves the old or the new one, whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from .settings import Change, is_false

FORMAT = 1
NAME = "journal.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Phase(StrEnum):
    """How far a restore has come, in this order; each is written before it begins."""

    PREPARED = "prepared"  # nothing has changed yet
    TUNING = "tuning"  # settings are being changed; the server may restart
    CREATING = "creating"  # the new database and its extension
    PRE_DATA = "pre-data"
    CATALOG = "catalog"  # TimescaleDB's catalog, with one job
    DATA = "data"
    POST_DATA = "post-data"
    PLAIN = "plain"  # in place of the four before: a plain dump has no sections
    FINISHING = "finishing"  # timescaledb_post_restore and ANALYZE
    VALIDATING = "validating"
    REVERTING = "reverting"  # settings are being taken back
    FLUSHED = "flushed"  # settings are back, and everything written before is on disk
    SWAPPING = "swapping"  # the new database takes its name
    SUSPECT = "suspect"  # the host went down while fsync was off


BEFORE_FLUSH = frozenset(Phase) - {Phase.PREPARED, Phase.FLUSHED, Phase.SWAPPING, Phase.SUSPECT}


class JournalError(Exception):
    """The journal cannot be read, or tells of something no program may mend: what it says and what to do."""


@dataclass(frozen=True)
class Journal:
    """What a restore needs to be taken back; ``changes`` are the server's settings in the order they were changed."""

    system_identifier: str
    boot_id: str
    container: str
    database: str
    restoring: str
    replaced: str | None
    drop_replaced: bool
    checksum: str
    archive_hole: bool
    changes: tuple[Change, ...]
    phase: Phase = Phase.PREPARED

    @property
    def without_fsync(self) -> bool:
        """Whether what was written in this phase may still be nowhere but in the host's memory."""
        return self.phase in BEFORE_FLUSH and any(
            change.name == "fsync" and is_false(change.value) for change in self.changes
        )

    def is_suspect(self, boot_id: str) -> bool:
        """Whether the host was started anew after fsync was turned off and before all was on disk."""
        return self.phase is Phase.SUSPECT or (self.without_fsync and self.boot_id != boot_id)


def this_boot() -> str:
    """The kernel's id of this boot of the host; it is the host's in a container too."""
    return BOOT_ID.read_text().strip()


def read_journal(folder: Path) -> Journal | None:
    """The journal in the folder, None where there is none. Raises JournalError where it is not one of ours."""
    path = folder / NAME
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise JournalError(
                f"{path} is of another release's format, expected {FORMAT}: run the release that wrote it with "
                "state=reverted."
            )
        changes = tuple(Change(**change) for change in fields.pop("changes"))
        return Journal(changes=changes, phase=Phase(fields.pop("phase")), **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JournalError(
            f"{path} is no restore journal ({error!r}): an earlier restore may have left fsync or archive_mode off. "
            "Look into postgresql.auto.conf, RESET there what is not wanted, then remove the file."
        ) from error


def write_journal(folder: Path, journal: Journal) -> None:
    """Put the journal into the folder, durably."""
    beside = folder / f"{NAME}.new"
    with beside.open("w") as file:
        json.dump({"format": FORMAT, **asdict(journal)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(folder / NAME)
    sync_folder(folder)


def enter(folder: Path, journal: Journal, phase: Phase) -> Journal:
    """Note that a phase begins; returns the journal in that phase."""
    moved = replace(journal, phase=phase)
    write_journal(folder, moved)
    return moved


def remove_journal(folder: Path) -> None:
    """Take the journal away, durably: nothing is left to be taken back."""
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{NAME}.new").unlink()
    (folder / NAME).unlink()
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
