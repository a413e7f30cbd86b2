"""One run of the module: what was asked for, and what has been seen and done so far."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..tuned_restore import engine
from ..tuned_restore.progress import telling
from ..tuned_restore.source import is_below

SESSION = "cryptopip logical_backup"
"""Application name of every session of a dump, those of its one-shot containers too."""

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+) ?(s|min|h|d)")


class BackupError(Exception):
    """A dump is refused, has failed or is not whole: what was found, expected, and what to do."""


@dataclass(frozen=True)
class Wish:
    """What the operator asked for; no ``databases`` means all."""

    databases: tuple[str, ...]
    path: Path
    name: str | None
    format: str
    jobs: int
    max_age: timedelta | None
    keep: int | None
    verify: str
    force: bool
    container: str
    work: Path

    @property
    def helper(self) -> str:
        """Name of the one-shot container."""
        return f"{self.container}-dump"

    def check(self, container: engine.Container) -> None:
        """Raise BackupError for a wish that cannot be fulfilled."""
        for option, folder in (("path", self.path), ("work_path", self.work)):
            inside = [mount for mount in container.mounts if is_below(folder, mount)]
            if inside:
                raise BackupError(
                    f"{option} {folder} lies in {inside[0]}, which the server's container mounts: a dump there is lost "
                    "together with the database. Name another folder."
                )
        if self.jobs < 1:
            raise BackupError(f"jobs is {self.jobs}, expected 1 or more.")
        if self.keep is not None and self.keep < 1:
            raise BackupError(f"keep is {self.keep}, expected 1 or more: the last verified dump is never removed.")


@dataclass
class Run:
    """One run: how to reach the server, the wish, and what has been seen and done so far."""

    options: Mapping[str, Any]
    wish: Wish
    container: engine.Container
    scratch: Path
    seconds: dict[str, float] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step of the work: add the time spent to what a result tells."""
        enter(name)
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - begin, 3)

    @contextmanager
    def told(self, line: str) -> Iterator[None]:
        """Tell those who wait what goes on."""
        with telling(self.scratch, lambda: line):
            yield


def enter(_step: str) -> None:
    """Called when a step begins; a test puts a kill here."""


def duration(text: str) -> timedelta:
    """``30s``, ``90min``, ``24h`` or ``7d``. Raises BackupError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise BackupError(f"max_age is {text!r}, expected a number and a unit, as in 30s, 90min, 24h or 7d.")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
