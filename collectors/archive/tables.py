"""Which tables are archived: the rows of each that belong to a month, and the digest by which a change is seen."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from psycopg import sql

from collectors.archive.month import Month
from collectors.events import CHANNELS

Kind = Literal["events", "state"]
LEDGER = "schema_migrations"
NOT_ARCHIVED = {
    "watermarks": "how far sync has come, not what it brought: with it, a sync after an import would skip rows",
    "supersessions": "how far sync has come with connections that were loaded again",
    **dict.fromkeys(
        ("comparisons", "doubts"), "how far ingestors were compared: after an import they are compared again"
    ),
    **dict.fromkeys(
        ("dropped_chunks", "late_rows"),
        "what this datalake no longer keeps: with it, an import would bring nothing back",
    ),
    "identities": "what the decoders declare: sync and an import write it anew",
    "protections": "which backups and archives were verified here; brought back elsewhere it would let ingestors prune",
    **dict.fromkeys(
        ("ohlcv_1s", "ohlcv_1m", "ohlcv_1h", "ohlcv_1d", "ohlcv_hours"), "`cryptopip derive` makes them from trades"
    ),
    **dict.fromkeys(("book_snapshots", "book_hours"), "`cryptopip derive` makes them from book events"),
    LEDGER: "the manifest names the schema",
}
"""Tables that are left out, and why."""


class Table(Struct, frozen=True):
    """One table of the datalake, as ``t``; ``{start}`` and ``{end}`` in its SQL are the month's."""

    name: str
    kind: Kind
    """Events belong to the month of their time and never change; state is what gives them their meaning."""
    belongs: str
    """That a row belongs to the month."""
    known: str = ""
    """The text of a row of state as it was known when the month ended: what happened later must not change it."""

    def belongs_to(self, month: Month) -> sql.Composed:
        """The condition with the month filled in."""
        return _of(month, self.belongs)

    def digest_query(self, month: Month) -> sql.Composed:
        """Rows and hash, a sum that does not depend on their order; of events, the sum of the digests kept of them."""
        if self.kind == "events":
            return sql.SQL(
                "SELECT coalesce(sum(t.rows), 0)::bigint, coalesce(sum(t.hash), 0)::text FROM digests AS t"
                " WHERE t.channel = {} AND {}"
            ).format(sql.Literal(self.name), _of(month, _HOUR))
        return sql.SQL("SELECT count(*), coalesce(sum(event_hash({})), 0)::text FROM {} AS t WHERE {}").format(
            _of(month, self.known), sql.Identifier(self.name), self.belongs_to(month)
        )


def received(channel: str) -> str:
    """That an event of ``t`` was received: derived quotes are computed, in no digest, and made anew."""
    return "NOT t.is_derived" if channel == "quotes" else "true"


def _of(month: Month, text: str) -> sql.Composed:
    return sql.SQL(text).format(start=sql.Literal(month.start), end=sql.Literal(month.end))


_HOUR = "t.hour >= {start} AND t.hour < {end}"
_TIME = "t.time >= {start} AND t.time < {end}"
_CONNECTION = "t.opened_at < {end} AND t.alive_until >= {start}"
# An open interval reaches as far as its connection is known to have been alive, as in coverage_intervals.
_COVERAGE = """t.started_at < {end} AND coalesce(t.ended_at, greatest((
    SELECT c.alive_until FROM connections AS c
    WHERE c.incarnation = t.incarnation AND c.stream = t.stream AND c.epoch = t.epoch
), t.started_at)) >= {start}"""
_RECORDING = "t.during && tstzrange({start}, {end})"

TABLES: tuple[Table, ...] = (
    Table(
        "sources",
        "state",
        f"t.incarnation IN (SELECT t.incarnation FROM connections AS t WHERE {_CONNECTION})"  # noqa: S608
        f" OR t.incarnation IN (SELECT t.incarnation FROM coverage AS t WHERE {_COVERAGE})",
        "(to_jsonb(t) - 'last_seen')::text",
    ),
    Table(
        "instruments",
        "state",
        "(t.listed_at < {end} AND coalesce(t.delisted_at >= {start}, true))"  # noqa: S608
        f" OR t.id IN (SELECT t.instrument_id FROM digests AS t WHERE {_HOUR})"
        f" OR t.id IN (SELECT t.instrument_id FROM recording AS t WHERE {_RECORDING})",
        "(to_jsonb(t) || jsonb_build_object('delisted_at',"
        " CASE WHEN t.delisted_at < {end} THEN t.delisted_at END))::text",
    ),
    Table(
        "recording",
        "state",
        _RECORDING,
        "(to_jsonb(t) || jsonb_build_object('during', t.during * tstzrange({start}, {end})))::text",
    ),
    Table(
        "connections",
        "state",
        _CONNECTION,
        "(to_jsonb(t) - 'batch' || CASE WHEN t.alive_until < {end} THEN '{{}}'::jsonb ELSE"
        " jsonb_build_object('alive_until', {end}) END || CASE WHEN t.closed_at < {end} THEN '{{}}'::jsonb ELSE"
        """ '{{"closed_at": null, "ended_by": null}}' END)::text""",
    ),
    Table(
        "coverage",
        "state",
        _COVERAGE,
        "(to_jsonb(t) - 'batch' || jsonb_build_object('revoked', t.revoked * tstzmultirange(tstzrange(NULL, {end})))"
        " || CASE WHEN t.ended_at < {end} THEN '{{}}'::jsonb ELSE"
        """ '{{"ended_at": null, "ended_by": null, "last_id": null, "last_time": null}}' END)::text""",
    ),
    Table("backfills", "state", "t.gap && tstzrange({start}, {end})", "to_jsonb(t)::text"),
    Table("sync_conflicts", "state", _TIME, "to_jsonb(t)::text"),
    *(Table(channel, "events", f"{_TIME} AND {received(channel)}") for channel in CHANNELS),
    Table(
        "digests",
        "state",
        _HOUR,
        "concat_ws('|', t.channel, t.instrument_id, date_part('epoch', t.hour)::bigint, t.rows, t.hash)",
    ),
)
"""In the order in which they are brought back: what others refer to comes first."""
BY_NAME = {table.name: table for table in TABLES}
