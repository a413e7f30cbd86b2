"""What a base backup is, whichever engine made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any


class BackupError(Exception):
    """A refusal or failure: ``code`` for programs, the message for people, ``problems`` object by object.

    Codes: usage, store, foreign, busy, not_found, corrupt, last_verified, server, deadline, engine.
    """

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Problem:
    """One file of a backup, or one segment of its WAL, that is not as it should be; ``object`` is its path or name."""

    object: str
    problem: str


@dataclass(frozen=True)
class Backup:
    """One complete base backup. Times are UTC, aware; ``size_bytes`` is what it takes in the store.

    ``verified`` is None where nobody has read it through yet, False where the last reading found problems.
    ``requires`` are the backups that this one is restored together with (those an incremental one builds on).
    """

    name: str
    engine: str
    system_identifier: str
    timeline: int
    start_lsn: str
    stop_lsn: str
    started_at: datetime
    finished_at: datetime
    size_bytes: int
    verified: bool | None
    verified_at: datetime | None
    requires: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """From the start of the backup to its end, by the server's clock."""
        return (self.finished_at - self.started_at).total_seconds()

    def facts(self) -> dict[str, Any]:
        """As a module returns it."""
        return asdict(self) | {
            "started_at": text_of(self.started_at),
            "finished_at": text_of(self.finished_at),
            "verified_at": None if self.verified_at is None else text_of(self.verified_at),
            "requires": list(self.requires),
            "duration_s": self.duration_s,
        }

    def line(self) -> str:
        """As a diff shows it."""
        verdict = {None: "not verified", True: "verified", False: "CORRUPT"}[self.verified]
        return (
            f"{self.name}  {text_of(self.finished_at)}  timeline {self.timeline}  {self.size_bytes} bytes  {verdict}\n"
        )


@dataclass(frozen=True)
class Listing:
    """All complete backups, the oldest end first; ``unreadable`` are names of those whose description is lost."""

    backups: tuple[Backup, ...]
    unreadable: tuple[str, ...] = ()

    def named(self, name: str) -> Backup:
        """The backup of that name. Raises BackupError ``not_found``."""
        for backup in self.backups:
            if backup.name == name:
                return backup
        known = ", ".join(backup.name for backup in self.backups) or "none"
        raise BackupError("not_found", f"no complete backup is named {name!r}, there are: {known}.")

    def text(self) -> str:
        """As a diff shows it."""
        return "".join(backup.line() for backup in self.backups) + "".join(
            f"{n}  UNREADABLE\n" for n in self.unreadable
        )


@dataclass(frozen=True)
class Cluster:
    """One cluster of which a store holds anything; ``newest`` is the end of its newest backup."""

    system_identifier: str
    backups: int
    newest: datetime | None
    is_here: bool  # in the server's place

    def text(self) -> str:
        """For an error message."""
        span = "" if self.newest is None else f", the newest of {text_of(self.newest)}"
        return f"{self.system_identifier} ({self.backups} backups{span})"


@dataclass(frozen=True)
class Removal:
    """What a removal takes away, or would: names of backups, and of archived files of WAL that no other needs."""

    kept: tuple[str, ...]
    removed: tuple[str, ...]
    removed_wal: tuple[str, ...]


def instant(text: str) -> datetime:
    """An aware time from ISO 8601; what names no zone is UTC."""
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def text_of(at: datetime) -> str:
    """ISO 8601, UTC, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
