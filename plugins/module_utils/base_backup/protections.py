"""Table ``protections`` of the datalake: ingestors keep what no verified backup holds yet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..postgres import PostgresError, connect
from .model import BackupError, Listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

Row = tuple[str, datetime, datetime]


def rows_of(listing: Listing) -> set[Row]:
    """Name, up to when it protects, and when it was verified, of each backup that does.

    What was merged before a backup began is in it. What was merged later is in the WAL after it.
    """
    return {
        (f"{backup.engine}:{backup.name}", backup.started_at, backup.verified_at)
        for backup in listing.backups
        if backup.verified and backup.verified_at is not None
    }


@contextmanager
def table(options: Mapping[str, Any], database: str) -> Iterator[Connection[tuple[Any, ...]]]:
    """A connection to the datalake, seen to have the table. Raises BackupError ``server``."""
    try:
        connection = connect(options, database, read_only=False)
    except PostgresError as error:
        raise BackupError(
            "server", f"{error} What verified backups protect is written there; database='' leaves that out."
        ) from error
    with connection:
        if connection.execute("SELECT to_regclass('public.protections')").fetchone() == (None,):
            raise BackupError(
                "server",
                f"database {database} has no table protections, expected the datalake with its newest schema: run "
                "playbooks/migrate.yml, or name the datalake; database='' leaves out what backups protect.",
            )
        yield connection


def reconcile(connection: Connection[tuple[Any, ...]], engine: str, listing: Listing) -> bool:
    """Make the table say of this engine's backups what the store says; whether anything was another.

    Also mends what removals by hand, and a restore of the datalake to an earlier moment, have left.
    """
    wanted = rows_of(listing)
    with connection.transaction():
        connection.execute("LOCK TABLE protections IN SHARE ROW EXCLUSIVE MODE")
        found = connection.execute(
            "SELECT name, protected_until, verified_at FROM protections "
            "WHERE source = 'base_backup' AND starts_with(name, %s)",
            [f"{engine}:"],
        ).fetchall()
        if set(found) == wanted:
            return False
        connection.execute(
            "DELETE FROM protections WHERE source = 'base_backup' AND starts_with(name, %s)", [f"{engine}:"]
        )
        for row in sorted(wanted):
            connection.execute(
                "INSERT INTO protections (source, name, protected_until, verified_at) "
                "VALUES ('base_backup', %s, %s, %s)",
                row,
            )
    return True
