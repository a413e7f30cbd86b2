"""How the state of an archived month joins what a datalake has of it already."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from collectors.archive.errors import ArchiveError

_INSERT = "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM {stage} "
# The open row of an instrument and channel may be younger than the archive's: then that ends where it begins.
_OPENED = """
SELECT lower(o.during) FROM recording AS o
WHERE o.instrument_id = s.instrument_id AND o.channel = s.channel AND upper_inf(o.during)
"""
_RECORDING = (
    """
UPDATE recording AS t SET during = s.during FROM {stage} AS s
WHERE
    t.instrument_id = s.instrument_id AND t.channel = s.channel AND lower(t.during) = lower(s.during)
    AND upper_inf(t.during) AND NOT upper_inf(s.during)
""",
    f"""
INSERT INTO recording (instrument_id, channel, during)
SELECT
    s.instrument_id, s.channel,
    CASE WHEN upper_inf(s.during) THEN s.during * tstzrange(NULL, ({_OPENED})) ELSE s.during END
FROM {{stage}} AS s
WHERE NOT EXISTS (
    SELECT FROM recording AS t
    WHERE
        t.instrument_id = s.instrument_id AND t.channel = s.channel
        AND (t.during @> s.during OR lower(t.during) = lower(s.during))
)
""",  # noqa: S608
)
_STATEMENTS: dict[str, tuple[str, ...]] = {
    "sources": (_INSERT + "ON CONFLICT (incarnation) DO NOTHING",),
    "instruments": (
        _INSERT + "ON CONFLICT (id) DO UPDATE SET delisted_at = excluded.delisted_at"
        " WHERE t.delisted_at IS NULL AND excluded.delisted_at IS NOT NULL",
    ),
    "recording": _RECORDING,
    "connections": (
        _INSERT + "ON CONFLICT (incarnation, stream, epoch) DO UPDATE SET {renewed} WHERE t.batch < excluded.batch",
    ),
    "coverage": (_INSERT + "ON CONFLICT (incarnation, id) DO UPDATE SET {renewed} WHERE t.batch < excluded.batch",),
    "backfills": (
        _INSERT + "ON CONFLICT (instrument_id, gap) DO UPDATE SET {renewed} WHERE t.changed_at < excluded.changed_at",
    ),
    "sync_conflicts": (_INSERT + "ON CONFLICT DO NOTHING",),
}


def merge_statements(table: str, stage: sql.Identifier, columns: list[str]) -> list[sql.Composed]:
    """What brings the rows of ``stage`` into ``table``; the rows that each changes are counted by the server."""
    parts = {
        "table": sql.Identifier(table),
        "stage": stage,
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "renewed": sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in columns),
    }
    return [sql.SQL(statement).format(**parts) for statement in _STATEMENTS[table]]


def refuse_strangers(connection: psycopg.Connection[Any], stage: sql.Identifier) -> None:
    """Raises ArchiveError where an id, or a listing, means something else in the datalake: rows carry ids alone."""
    row = connection.execute(
        sql.SQL(
            "SELECT s.id, s.exchange, s.native_id, s.listed_at, t.id, t.exchange, t.native_id, t.listed_at"
            " FROM {} AS s INNER JOIN instruments AS t ON t.id = s.id"
            " OR (t.exchange, t.native_id, t.listed_at) = (s.exchange, s.native_id, s.listed_at)"
            " WHERE (t.id, t.exchange, t.native_id, t.listed_at) IS DISTINCT FROM"
            " (s.id, s.exchange, s.native_id, s.listed_at) LIMIT 1"
        ).format(stage)
    ).fetchone()
    if row is not None:
        raise ArchiveError(
            f"instrument {row[0]} is {row[1]} {row[2]} (listed {row[3]:%Y-%m-%d}) in the archive, and the datalake has"
            f" {row[4]} as {row[5]} {row[6]} (listed {row[7]:%Y-%m-%d}): these are histories of two fleets, whose ids"
            " mean different things; nothing was changed"
        )
