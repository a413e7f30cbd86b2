"""Which databases to dump, and which dumps to remove. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from .run import BackupError
from .store import Dump

SHARE = 0.1
"""Bytes of a dump to bytes of its database, indexes included, where there is no dump yet; as measured for ticks."""


def choose_databases(wished: Sequence[str], present: Iterable[str]) -> list[str]:
    """Those asked for, or all. Raises BackupError naming those that the server does not have."""
    known = sorted(present)
    missing = [name for name in wished if name not in known]
    if missing:
        raise BackupError(
            f"the server has no database {', '.join(missing)}, expected one of {', '.join(known) or 'none'}: check "
            "databases."
        )
    if not known:
        raise BackupError("the server has no database to dump: check login_host and login_port.")
    return list(dict.fromkeys(wished)) or known


def verified_of(dumps: Iterable[Dump], database: str) -> list[Dump]:
    """The verified dumps of a database, the oldest first."""
    return sorted((d for d in dumps if d.is_verified and d.database == database), key=lambda d: (d.taken_at, d.name))


def is_due(dumps: Iterable[Dump], database: str, max_age: timedelta | None, now: datetime) -> bool:
    """Whether a new dump is to be made: always without ``max_age``, else where no verified one is younger."""
    if max_age is None:
        return True
    good = verified_of(dumps, database)
    return not good or now - good[-1].taken_at >= max_age


def surplus(dumps: Iterable[Dump], database: str, keep: int | None, *, coming: int = 0) -> list[Dump]:
    """Verified dumps beyond the newest ``keep``, ``coming`` of which are yet to be made; never one that is damaged.

    A damaged dump does not count as kept, so that no verified one goes in its favour.
    """
    if keep is None:
        return []
    good = verified_of(dumps, database)
    return good[: max(len(good) + coming - max(keep, 1), 0)]


def check_removal(dumps: Sequence[Dump], dump: Dump, *, force: bool) -> None:
    """Raise BackupError where the last verified dump of a database would go."""
    if force or dump.database is None or not dump.is_verified:
        return
    if verified_of(dumps, dump.database) == [dump]:
        raise BackupError(
            f"{dump.path} is the last verified dump of {dump.database}: make another one first, or set force to true."
        )


def expected_size(dumps: Iterable[Dump], database: str, database_bytes: int) -> int:
    """Bytes that a dump will take: as the newest one, grown with the database; a share of it where there is none."""
    good = verified_of(dumps, database)
    if good and (manifest := good[-1].manifest) is not None and manifest.database_bytes > 0:
        return int(manifest.size * (database_bytes / manifest.database_bytes))
    return int(database_bytes * SHARE)


def check_space(expected: int, free: int, folder: str) -> None:
    """Raise BackupError where the folder's file system has no room for the dump."""
    if free < expected:
        raise BackupError(
            f"the file system of {folder} has {free >> 20} MB free, the dump takes about {max(expected >> 20, 1)} MB: "
            "make room there, or keep fewer dumps."
        )
