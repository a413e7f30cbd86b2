"""Rows of a datalake's table ``protections``: what ingestors may prune since a verified dump holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .snapshot import is_datalake, session
from .store import Dump

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

SOURCE = "logical_backup"


def wanted(dumps: Iterable[Dump], database: str, system_identifier: str) -> dict[str, tuple[str, str]]:
    """Folder of each verified dump of this very database -> up to when it protects, and when that was verified."""
    return {
        str(dump.path): (dump.manifest.merged_until, dump.verdict.at)
        for dump in dumps
        if dump.is_verified
        and dump.manifest is not None
        and dump.verdict is not None
        and (dump.manifest.database, dump.manifest.system_identifier) == (database, system_identifier)
        and dump.manifest.merged_until is not None
    }


def settle(options: Mapping[str, Any], database: str, folder: Path, dumps: Iterable[Dump], *, check: bool) -> list[str]:
    """One row for each verified dump of the folder and none for others; what was (would be) changed, a line each."""
    with session(options, database, read_only=check) as connection:
        if not is_datalake(connection):
            return []
        row = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
        assert row is not None
        rows = wanted(dumps, database, row[0])
        here = _here(connection, folder)
        lines = [f"protection by {name} ends" for name in sorted(here - rows.keys())]
        lines += [f"protection by {name} until {rows[name][0]}" for name in sorted(rows.keys() - here)]
        if not check:
            _write(connection, here - rows.keys(), rows)
    return lines


def _here(connection: Database, folder: Path) -> set[str]:
    rows = connection.execute(
        "SELECT name FROM public.protections WHERE source = %s AND starts_with(name, %s)", [SOURCE, f"{folder}/"]
    )
    return {name for (name,) in rows}


def _write(connection: Database, gone: set[str], rows: Mapping[str, tuple[str, str]]) -> None:
    with connection.transaction():
        connection.execute(
            "DELETE FROM public.protections WHERE source = %s AND name = ANY (%s)", [SOURCE, sorted(gone)]
        )
        connection.cursor().executemany(
            "INSERT INTO public.protections AS p (source, name, protected_until, verified_at) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (source, name) DO UPDATE SET protected_until = excluded.protected_until, "
            "verified_at = excluded.verified_at "
            "WHERE (p.protected_until, p.verified_at) <> (excluded.protected_until, excluded.verified_at)",
            [(SOURCE, name, until, verified) for name, (until, verified) in rows.items()],
        )
