"""Epoch by epoch through a scratch ingestor database: loaded by the loader, merged by sync, wiped.

Memory is theirs, the scratch database never holds more than one epoch, and what the datalake gets is what it would have
got from the ingestors. An epoch's scratch has the same incarnation in every run, so that a run that was ended goes on
where it was, and nothing is merged twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import structlog
from msgspec import Struct, field
from psycopg import sql

from collectors.config import Source, Sync
from collectors.datalake import missing_relations
from collectors.decode import decoder
from collectors.errors import CryptopipError, UsageError
from collectors.events import CHANNELS
from collectors.journal import Damage, Position
from collectors.load.database import Database, StreamTakenError
from collectors.load.loader import Session, Totals, turns
from collectors.load.source import PIECE_BYTES, Piece, SegmentSource
from collectors.load.source import Source as PieceSource
from collectors.rebuild.plan import Life, lives_of
from collectors.sync import sync_once
from collectors.sync.source import INSTRUMENT_COLUMNS

_WIPED: Final = (
    "streams", "load_batches", "journal_positions", "journal_damage", "parked_frames", "rejected_events",
    "connections", "coverage", "coverage_states", *CHANNELS,
)  # fmt: skip


class Report(Struct):
    """What a rebuild did; ``missing`` and ``damages`` are places of the journals that could not be read."""

    epochs: int = 0
    done_before: int = 0
    frames: int = 0
    rows: int = 0
    inserted: int = 0
    conflicts: int = 0
    parked: int = 0
    rejected: int = 0
    damages: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every frame of the journals is in the datalake."""
        return not (self.parked or self.damages or self.missing or self.conflicts)


def rebuild(
    folders: Sequence[Path],
    datalake: str,
    scratch: str,
    *,
    on_epoch: Callable[[Life, int, int], None] = lambda *_: None,
) -> Report:
    """Fill an empty datalake (its instruments apart) from the journals below ``folders``.

    ``scratch``: conninfo of an empty ingestor database whose owner this is. ``on_epoch`` is told what comes next, its
    place and of how many. Raises UsageError, CryptopipError, psycopg.Error; a second call goes on from there.
    """
    lives = lives_of(folders)
    report = Report()
    for life in lives:
        decoder(life.exchange)  # one that is not known is told before anything is changed
    instruments = _check_datalake(datalake, lives)
    done = _check_scratch(scratch)
    for number, life in enumerate(lives, 1):
        on_epoch(life, number, len(lives))
        report.epochs += 1
        report.missing += [f"{life.ingestor}/{life.stream} {life.epoch}-{seq:06d}" for seq in life.missing]
        if str(life.incarnation) in done:
            report.done_before += 1
            continue
        _wipe(scratch, life, instruments)
        _add(report, _load(life, scratch))
        synced = sync_once(Sync(datalake, [Source(life.ingestor, scratch)]), wait=True)
        if synced.failed:
            raise CryptopipError(
                f"epoch {life.epoch} of {life.ingestor}/{life.stream} was not merged: {synced.failed[0].error}"
            )
        report.inserted += synced.inserted
        report.conflicts += synced.conflicts
        with psycopg.connect(scratch, autocommit=True) as connection:
            connection.execute("INSERT INTO rebuilt VALUES (%s) ON CONFLICT DO NOTHING", [life.incarnation])
    _wipe(scratch, None, [])
    return report


def _check_datalake(conninfo: str, lives: Sequence[Life]) -> list[tuple[Any, ...]]:
    """Its instruments; raises UsageError where it has none, or holds what is not of these journals."""
    with psycopg.connect(conninfo, client_encoding="UTF8", application_name="cryptopip rebuild") as connection:
        if missing := missing_relations(connection, ("instruments", "sources", "watermarks", *CHANNELS)):
            raise UsageError(f"the datalake has no table {', '.join(missing)}: migrate it first (playbook migrate)")
        sources: dict[Any, str] = dict(connection.execute("SELECT incarnation, ingestor FROM sources").fetchall())
        strange = sorted({sources[one] for one in sources.keys() - {life.incarnation for life in lives}})
        if strange:
            raise UsageError(
                f"the datalake is not empty: it was merged from {', '.join(strange)}; give a new one, for what these"
                " journals do not have would stay in it and no comparison could tell"
            )
        columns = sql.SQL(", ").join(map(sql.Identifier, INSTRUMENT_COLUMNS))
        rows = connection.execute(sql.SQL("SELECT {} FROM instruments ORDER BY id").format(columns)).fetchall()
    known = {row[INSTRUMENT_COLUMNS.index("exchange")] for row in rows}
    if unknown := sorted({life.exchange for life in lives} - known):
        raise UsageError(
            f"the datalake has no instrument of {', '.join(unknown)}, so that no frame would find its id: load the"
            " universe first (cryptopip universe load FILE --kind datalake --dsn ...)"
        )
    return rows


def _check_scratch(conninfo: str) -> set[str]:
    """Epochs that are merged; raises UsageError for a database that is not ours to wipe."""
    with psycopg.connect(conninfo, client_encoding="UTF8", application_name="cryptopip rebuild") as connection:
        if missing := missing_relations(connection, _WIPED):
            raise UsageError(
                f"the scratch database has no table {', '.join(missing)}: give an empty database with the migrations"
                " of an ingestor"
            )
        if missing_relations(connection, ("rebuilt",)):
            row = connection.execute("SELECT count(*) FROM load_batches").fetchone()
            if row is None or row[0]:
                raise UsageError(
                    f"the scratch database {connection.info.dbname} holds {row and row[0]} load batches of an ingestor,"
                    " which would be deleted: give an empty one"
                )
            connection.execute("CREATE TABLE rebuilt (incarnation uuid PRIMARY KEY)")
        return {str(row[0]) for row in connection.execute("SELECT incarnation FROM rebuilt")}


def _wipe(conninfo: str, life: Life | None, instruments: Sequence[tuple[Any, ...]]) -> None:
    """Empty the scratch database; with ``life`` it is that epoch's from here on."""
    with psycopg.connect(conninfo, client_encoding="UTF8", application_name="cryptopip rebuild") as connection:
        tables = sql.SQL(", ").join(map(sql.Identifier, ("instruments", *_WIPED)))
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))
        if life is None:
            return
        connection.execute("UPDATE incarnation SET id = %s", [life.incarnation])
        columns = sql.SQL(", ").join(map(sql.Identifier, INSTRUMENT_COLUMNS))
        copy = sql.SQL("COPY instruments ({}) FROM STDIN").format(columns)
        with connection.cursor() as cursor, cursor.copy(copy) as rows:
            for row in instruments:
                rows.write_row(row)


class _BehindHole:
    """A segment before which others are missing: nobody knows what they held, so what was covered ends before it."""

    def __init__(self, inner: SegmentSource, missing: str) -> None:
        self.segment = inner.segment
        self.epoch = inner.epoch
        self._inner = inner
        self._hole: Damage | None = Damage(0, 0, missing)

    def take(self, limit: int = PIECE_BYTES) -> Piece:
        """See Source."""
        piece = self._inner.take(limit)
        if self._hole is not None:
            piece.items.insert(0, self._hole)
            self._hole = None
        return piece

    def close(self) -> None:
        """See Source."""
        self._inner.close()


def _load(life: Life, scratch: str) -> Totals:
    totals = Totals()
    one = decoder(life.exchange)
    with turns(), Database(scratch, life.ingestor, life.stream, one) as database:
        if not database.try_lock():
            raise StreamTakenError("the scratch database is being written: give one that nobody else uses")
        session = Session(database, totals)
        try:
            following = 0
            for path in life.paths:
                number = int(path.name.partition("-")[2].partition(".")[0])
                inner = SegmentSource(path, Position())
                source: PieceSource = inner
                if number != following:
                    source = _BehindHole(inner, f"segments {following} to {number - 1} are missing")
                following = number + 1
                try:
                    while session.load(source) and not session.positions[path.name][1]:
                        pass
                finally:
                    source.close()
            session.flush()
        finally:
            session.close()
    return totals


def _add(report: Report, totals: Totals) -> None:
    report.frames += totals.frames
    report.rows += totals.rows
    report.parked += totals.parked
    report.rejected += totals.rejected
    report.damages += totals.damages
    if totals.parked or totals.damages:
        structlog.get_logger().warning(
            "not every frame could be loaded", parked_frames=totals.parked, damages=totals.damages
        )
