"""What the module base_backup asks of an engine. An engine is one file and one row in ``engines.py``.

Everything here raises BackupError. An engine keeps its own lock as well, so that a hand at the keyboard and a timer do
not meet: code ``busy`` where another holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .model import Backup, Cluster, Listing, Removal

Tell = Callable[[str], None]
"""Takes one line that says how far a long operation is, with cumulative figures; lines may be skipped by who reads."""


class Engine(Protocol):
    """One engine on one host, for the one cluster that runs there."""

    @property
    def name(self) -> str:
        """As in the module's option ``engine``."""

    def clusters(self) -> tuple[Cluster, ...]:
        """Every cluster that the store holds anything of."""

    def of_cluster(self, system_identifier: str) -> Engine:
        """The engine for another cluster of the store than the one in the server's place; for listing and fetching."""

    def listing(self) -> Listing:
        """Every complete backup of this cluster; one that is being made, or whose making died, is none."""

    def take(self, tell: Tell) -> Backup:
        """A new base backup; returns once it and all WAL it needs are durably in the store."""

    def verify(self, name: str, tell: Tell) -> Backup:
        """Read the backup, what it requires, and the WAL after it to their end; the backup with ``verified`` true.

        Keeps the answer, good or bad, so that ``listing`` tells it from then on. Raises ``corrupt`` with ``problems``.
        """

    def plan_retain(self, keep: int) -> Removal:
        """What ``retain`` would do now; changes nothing. Raises what ``retain`` would."""

    def retain(self, keep: int, tell: Tell) -> Removal:
        """Keep the newest ``keep`` backups (by their end, so a newer timeline is newer) and the WAL they need.

        Verifies the newest first and removes nothing where that is not whole: ``corrupt``.
        """

    def plan_delete(self, name: str) -> Removal:
        """What ``delete`` would do now; changes nothing. Raises what ``delete`` would, so also ``not_found``."""

    def delete(self, name: str, tell: Tell) -> Removal:
        """Remove one backup (with those that require it) and the WAL no other needs.

        Raises ``last_verified`` where no other verified backup would remain.
        """

    def fetch(self, name: str, folder: str, tell: Tell) -> None:
        """Put the backup into a new or empty folder, a path as the server sees it, ready to recover but for settings.

        Checked before anything is written, ``corrupt``. The cluster there has WAL and tablespaces of its own, so that
        it may be started beside the live one.
        """

    @property
    def restore_command(self) -> str:
        """PostgreSQL's setting for a cluster recovered from this engine's archive, run in the server's image."""
