"""Carries the universe into a database: table ``instruments`` everywhere, table ``recording`` in the datalake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql
from psycopg.rows import dict_row

from collectors.errors import CryptopipError
from collectors.events import Channel
from collectors.universe import Instrument, Universe

DatabaseKind = Literal["ingestor", "datalake"]
COLUMNS = tuple(field.name for field in msgspec.structs.fields(Instrument) if field.name != "channels")
_Key = tuple[int, Channel]


class UniverseConflictError(CryptopipError):
    """The file contradicts what the database already recorded under an id; nothing was changed."""


class Change(Struct, frozen=True, omit_defaults=True):
    """One row that differs; ``fields`` has old and new value of each column of an update."""

    action: Literal["add", "update", "open", "close"]
    id: int
    exchange: str
    symbol: str
    fields: dict[str, tuple[Any, Any]] = {}
    channel: Channel | None = None

    def __str__(self) -> str:
        what = f"id {self.id} {self.exchange} {self.symbol}"
        match self.action:
            case "add":
                return f"add {what}"
            case "update":
                return f"update {what}: " + ", ".join(f"{k} {old} -> {new}" for k, (old, new) in self.fields.items())
            case "open":
                return f"record {self.channel} of {what} from now on"
            case "close":
                return f"end the recording of {self.channel} of {what}"


def plan_instruments(universe: Universe, existing: dict[int, dict[str, Any]]) -> list[Change]:
    """What to add and update; raises UniverseConflictError where an id now names another instrument.

    ``existing`` is the table's rows by id. Rows that the file no longer has stay: their history refers to them.
    """
    changes: list[Change] = []
    conflicts: list[str] = []
    for instrument in universe.instruments:
        row = existing.get(instrument.id)
        if row is None:
            changes.append(Change("add", instrument.id, instrument.exchange, instrument.symbol))
            continue
        was = (row["exchange"], row["native_id"])
        if was != (instrument.exchange, instrument.native_id):
            conflicts.append(
                f"id {instrument.id} is {was[0]} {was[1]} in the database and {instrument.exchange} "
                f"{instrument.native_id} in the file: give the new instrument an id never used before"
            )
        differing = {
            column: (row[column], getattr(instrument, column))
            for column in COLUMNS
            if row[column] != getattr(instrument, column)
        }
        if differing:
            changes.append(Change("update", instrument.id, instrument.exchange, instrument.symbol, differing))
    if conflicts:
        raise UniverseConflictError("\n".join(conflicts))
    return changes


def plan_recording(universe: Universe, existing: dict[int, dict[str, Any]], is_open: set[_Key]) -> list[Change]:
    """Which channels begin and cease to be meant to be recorded; ``is_open`` are those being recorded now."""
    names = {number: (row["exchange"], row["symbol"]) for number, row in existing.items()}
    names |= {i.id: (i.exchange, i.symbol) for i in universe.instruments}
    wanted = [(i.id, channel) for i in universe.instruments if i.delisted_at is None for channel in i.channels]
    opened = [Change("open", key[0], *names[key[0]], channel=key[1]) for key in wanted if key not in is_open]
    closed = [Change("close", key[0], *names[key[0]], channel=key[1]) for key in sorted(is_open - set(wanted))]
    return opened + closed


def load_universe_into(
    connection: psycopg.Connection[Any], kind: DatabaseKind, universe: Universe, *, check: bool = False
) -> list[Change]:
    """Bring the tables to the universe in one transaction and return what changed (``check``: would change).

    Raises UniverseConflictError, with nothing changed, where an id would come to name another instrument.
    """
    with connection.transaction():
        if not check:
            # Two runs at once would both plan on the same state.
            connection.execute("LOCK TABLE instruments IN SHARE ROW EXCLUSIVE MODE")
        with connection.cursor(row_factory=dict_row) as cursor:
            existing = {row["id"]: row for row in cursor.execute("SELECT * FROM instruments")}
        changes = plan_instruments(universe, existing)
        if kind == "datalake":
            rows = connection.execute("SELECT instrument_id, channel FROM recording WHERE upper_inf(during)")
            changes += plan_recording(universe, existing, {(row[0], row[1]) for row in rows})
        if not check:
            _apply(connection, changes, {i.id: i for i in universe.instruments})
    return changes


def _apply(connection: psycopg.Connection[Any], changes: Sequence[Change], instruments: dict[int, Instrument]) -> None:
    for change in changes:
        match change.action:
            case "add" | "update":
                connection.execute(_UPSERT, [getattr(instruments[change.id], column) for column in COLUMNS])
            case "open":
                connection.execute(
                    "INSERT INTO recording (instrument_id, channel, during) VALUES (%s, %s, tstzrange(now(), NULL))",
                    (change.id, change.channel),
                )
            case "close":
                instrument = instruments.get(change.id)
                connection.execute(_CLOSE, (_end(instrument), change.id, change.channel))


def _end(instrument: Instrument | None) -> datetime | None:
    return instrument.delisted_at if instrument is not None else None


_UPSERT = sql.SQL("INSERT INTO instruments ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
    sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
    sql.SQL(", ").join([sql.Placeholder()] * len(COLUMNS)),
    sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in COLUMNS if c != "id"),
)
# A recording ends at the delisting where that is known and past, else now; a range must not be empty.
_CLOSE = """
UPDATE recording
SET during = tstzrange(
    lower(during), greatest(least(%s::timestamptz, now()), lower(during) + interval '1 microsecond')
)
WHERE instrument_id = %s AND channel = %s AND upper_inf(during)
"""
