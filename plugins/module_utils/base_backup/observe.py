"""Finds the figures that alarms are raised on; what cannot be found out is told as trouble, never taken for well."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..postgres import PostgresError, connect
from .alarms import Figures, keep_samples, wal_rate
from .contract import Engine
from .model import BackupError
from .plan import newest_verified

WINDOW_S = 3600.0
SAMPLES = "wal_samples.json"
WATCHED = "watched_since"
_ERRORS: tuple[type[Exception], ...] = (PostgresError, BackupError, OSError)
with contextlib.suppress(ImportError):
    import psycopg

    _ERRORS = (*_ERRORS, psycopg.Error)

_LAG = """
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(modification)), 0)::float8,
    pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0'
    )::bigint
FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'
"""
_DRILL = """
SELECT extract(epoch FROM now() - max(started_at + duration))::float8 FROM restore_drills WHERE result = 'good'
"""


@dataclass
class Observer:
    """Asks the server, the engine and the file system of one host."""

    engine: Engine
    connection: Mapping[str, Any]
    wal_path: Path
    work: Path
    app_database: str
    troubles: list[str] = field(default_factory=list)

    def figures(self) -> Figures:
        """All there is to know now."""
        segments, lag, position = self._lag()
        return Figures(
            archive_lag_segments=segments,
            archive_lag_s=lag,
            backup_age_s=self._backup_age(),
            drill_age_s=self._drill_age() if self.app_database else None,
            wal_free_bytes=self._free(),
            wal_bytes_per_s=None if position is None else self._rate(position),
            troubles=tuple(self.troubles),
        )

    def _lag(self) -> tuple[int | None, float | None, int | None]:
        try:
            with connect(self.connection, "postgres", read_only=True) as connection:
                (mode,) = connection.execute("SELECT current_setting('archive_mode')").fetchone() or ("",)
                if mode == "off":
                    self.troubles.append(
                        "archive_mode is off, expected on: nothing that is written now can be recovered."
                    )
                row = connection.execute(_LAG).fetchone()
        except _ERRORS as error:
            self.troubles.append(f"the server could not be asked what waits to be archived: {error}")
            return None, None, None
        assert row is not None
        return int(row[0]), float(row[1]), int(row[2])

    def _backup_age(self) -> float | None:
        try:
            newest = newest_verified(self.engine.listing())
        except _ERRORS as error:
            self.troubles.append(f"the engine {self.engine.name} could not be asked for its backups: {error}")
            return None
        return None if newest is None else (datetime.now(UTC) - newest.finished_at).total_seconds()

    def _drill_age(self) -> float | None:
        try:
            with connect(self.connection, self.app_database, read_only=True) as connection:
                row = connection.execute(_DRILL).fetchone()
        except _ERRORS as error:
            self.troubles.append(f"database {self.app_database} could not be asked for restore drills: {error}")
            return None
        if row is not None and row[0] is not None:
            return float(row[0])
        # None went well yet: as old as our watch, so that the first has its time to come.
        since = self.work / WATCHED
        if not since.exists():
            write_whole(since, "")
        return max(0.0, time.time() - since.stat().st_mtime)

    def _free(self) -> int | None:
        try:
            found = os.statvfs(self.wal_path)
        except OSError as error:
            self.troubles.append(f"the free space of {self.wal_path} could not be found out: {error}")
            return None
        return found.f_bavail * found.f_frsize

    def _rate(self, position: int) -> float | None:
        path = self.work / SAMPLES
        try:
            samples = [(float(at), int(where)) for at, where in json.loads(path.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            samples = []  # the first run, or a file torn by a crash: the rate is known again a run later
        samples = keep_samples(samples, (time.time(), position), WINDOW_S)
        write_whole(path, json.dumps(samples))
        return wal_rate(samples)


def write_whole(path: Path, text: str) -> None:
    """Put a file there so that whoever reads sees the old one or the new one."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.chmod(0o644)
    beside.replace(path)
