"""What the datalake says of an ingestor, asked by the ingestor as a mere reader."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from collectors.datalake import missing_relations
from collectors.errors import CryptopipError
from collectors.events import CHANNELS
from collectors.sync.source import PATIENCE, Stream

_NEEDED = (
    "sources",
    "watermarks",
    "supersessions",
    "connections",
    "sync_conflicts",
    "protections",
    "instruments",
    "dropped_chunks",
)


def settled(conninfo: str) -> str:
    """The conninfo with what every session of pruning needs."""
    settings: dict[str, Any] = {**PATIENCE, **conninfo_to_dict(conninfo), "client_encoding": "UTF8"}
    return make_conninfo(**settings, application_name="cryptopip prune")


class Answer(Struct, frozen=True):
    """Times by the datalake's clock; ``first_seen`` is None where it never merged this database."""

    now: datetime
    protected_until: datetime | None
    first_seen: datetime | None
    watermarks: dict[str, int]
    pending: list[tuple[datetime, datetime]]


def connect(conninfo: str) -> psycopg.Connection[Any]:
    """A session with the datalake, which only ever fills temporary tables; raises CryptopipError."""
    try:
        connection = psycopg.connect(settled(conninfo), autocommit=True)
    except psycopg.Error as error:
        raise CryptopipError(f"cannot connect to the datalake: {str(error).strip()}") from error
    if missing := missing_relations(connection, (*_NEEDED, *CHANNELS)):
        connection.close()
        raise CryptopipError(f"the datalake has no {', '.join(missing)}: migrate it first (playbook migrate)")
    connection.execute("SET timezone = 'UTC'; SET client_connection_check_interval = '2s'")
    return connection


def ask(connection: psycopg.Connection[Any], incarnation: UUID, streams: Sequence[Stream]) -> Answer:
    """All of one moment."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        # Not now(), which is when the transaction began: what was merged between that and the snapshot is seen as well.
        row = connection.execute("SELECT clock_timestamp(), protected_until()").fetchone()
        assert row is not None
        first = connection.execute("SELECT first_seen FROM sources WHERE incarnation = %s", [incarnation]).fetchone()
        marks = connection.execute("SELECT stream, batch FROM watermarks WHERE incarnation = %s", [incarnation])
        watermarks = dict(marks.fetchall())
        # Whoever's epoch it is: this ingestor may be asked for the rows that both had.
        pending = connection.execute(
            "SELECT c.opened_at, c.alive_until FROM supersessions AS s"
            " INNER JOIN connections AS c USING (incarnation, stream, epoch)"
            " WHERE s.finished_at IS NULL AND c.exchange = ANY (%s)"
            " AND EXISTS (SELECT FROM unnest(s.waits_for) AS w WHERE w NOT LIKE '%%are pruned')",
            [sorted({stream.exchange for stream in streams})],
        ).fetchall()
    connection.isolation_level = None
    return Answer(row[0], row[1], first[0] if first else None, watermarks, [(a, b) for a, b in pending])


def names_of(connection: psycopg.Connection[Any], ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Exchange and native id of instruments."""
    rows = connection.execute("SELECT id, exchange, native_id FROM instruments WHERE id = ANY (%s)", [list(ids)])
    return {row[0]: (row[1], row[2]) for row in rows}
