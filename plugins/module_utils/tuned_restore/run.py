"""One run of the module: what was asked for, and what has been seen and done so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import engine, server
from .source import is_below

NAME_MAX = 63


class RestoreError(Exception):
    """A restore is refused or has failed: what was found, expected, and what to do."""


class AtWorkError(RestoreError):
    """Another restore is at work."""


class PhaseError(RestoreError):
    """pg_restore or psql itself failed: the dump does not go in, unless it is the server that went away."""


class StuckError(RestoreError):
    """What an earlier restore left cannot be taken back without somebody's help."""


@dataclass(frozen=True)
class Wish:
    """What the operator asked for."""

    database: str
    source: str
    rclone_config: str | None
    checksum: str | None
    profile: str
    settings: Mapping[str, str | None]
    accept_cluster_risk: bool
    existing: str
    owner: str | None
    jobs: int
    container: str
    work: Path
    may_restart: bool

    @property
    def restoring(self) -> str:
        """Name of the database until it is whole."""
        return f"{self.database}_restoring"

    @property
    def helper(self) -> str:
        """Name of the one-shot container."""
        return f"{self.container}-restore"

    def check(self, container: engine.Container) -> None:
        """Raise RestoreError for a wish that no server could fulfil."""
        inside = [folder for folder in container.mounts if is_below(self.work, folder)]
        if inside:
            raise RestoreError(
                f"work_path {self.work} lies in {inside[0]}, which the server's container mounts: name another folder."
            )
        if len(f"{self.database}_replaced_{'0' * 14}".encode()) > NAME_MAX or not self.database:
            raise RestoreError(f"database is {self.database!r}, expected a name of 1 to {NAME_MAX - 24} bytes.")
        if self.database in {"template0", "template1", server.MAINTENANCE_DATABASE}:
            raise RestoreError(f"database is {self.database}, which the server itself needs: name another.")
        if self.jobs < 1:
            raise RestoreError(f"jobs is {self.jobs}, expected 1 or more.")


@dataclass
class Run:
    """One run: how to reach the server, the wish, and what has been seen and done so far."""

    options: Mapping[str, Any]
    wish: Wish
    container: engine.Container
    seconds: dict[str, float] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time spent to what a result tells."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] = round(self.seconds.get(what, 0.0) + time.monotonic() - begin, 3)

    def tool(self, command: list[str], usable: Path, environment: Mapping[str, str] | None = None) -> engine.Finished:
        """A program of the database image over the dump."""
        mounts = {usable: engine.DUMP}
        if environment:
            mounts |= {Path(path): path for path in paths_of(environment)}
        return engine.run_once(self.wish.helper, self.container.image, command, mounts=mounts, environment=environment)


def paths_of(environment: Mapping[str, str]) -> list[str]:
    """Paths of the host that the programs need to reach the server."""
    candidates = (environment.get("PGHOST", ""), environment.get("PGSSLROOTCERT", ""))
    return [path for path in candidates if path.startswith("/")]
