"""Loading a connection's journal again with a newer decoder: what it yields takes the place of what was loaded before.

The unit is an epoch, for what is covered follows from all of its segments. All of it is one transaction: killed at any
point, nothing has happened. The rows superseded stay where they are, so that sync can tell what they alone contributed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from collectors.decode import Decoder
from collectors.errors import CryptopipError, UsageError
from collectors.journal import Position, is_writer_alive, segment_of, segments
from collectors.load.database import Database, StreamTakenError
from collectors.load.loader import Session, Totals, turns
from collectors.load.source import PIECE_BYTES, SegmentSource

_PATIENCE_SECONDS: Final = 15.0


class ReloadError(CryptopipError):
    """An epoch cannot be loaded again; nothing of it was changed."""


class Ledger(Struct, frozen=True):
    """What the database has of an epoch: segments, batches in force and the decoders that made them."""

    epoch: int
    segments: list[str]
    """In order, also those whose file is gone."""
    is_over: bool
    versions: list[str]
    batches: int
    rows: int


class Outcome(Struct, frozen=True):
    """What became of an epoch; ``totals`` None where ``said`` tells why it was left as it was."""

    epoch: int
    segments: list[str]
    superseded_batches: int
    superseded_rows: int
    totals: Totals | None
    said: str = ""


class ReloadDatabase(Database):
    """The ingestor's database with what a reload needs besides."""

    def ledger(self) -> list[Ledger]:
        """Every epoch that came from a journal, in order."""
        rows = self._connection.execute(
            r"""
            WITH epochs AS (
                SELECT epoch, array_agg(segment ORDER BY segment) AS names, bool_and(done) AS done
                FROM journal_positions WHERE stream_id = %(stream)s AND segment ~ '^\d+-\d{6,}\.journal\.zst$'
                GROUP BY epoch
            )
            SELECT e.epoch, e.names, e.done AND c.closed_at IS NOT NULL,
                array_agg(DISTINCT b.decoder_version ORDER BY b.decoder_version), count(*),
                sum(trades + quotes + book_events + derivatives + liquidations)::bigint
            FROM epochs AS e
            INNER JOIN load_batches AS b
                ON b.stream_id = %(stream)s AND b.segment = ANY (e.names) AND b.superseded_by IS NULL
            LEFT JOIN connections AS c ON c.stream_id = %(stream)s AND c.epoch = e.epoch
            GROUP BY e.epoch, e.names, e.done, c.closed_at
            ORDER BY e.epoch
            """,
            {"stream": self.stream.id},
        )
        return [Ledger(*row) for row in rows]

    @contextmanager
    def superseding(self, ledger: Ledger) -> Iterator[None]:
        """What is committed inside takes the place of the epoch's batches; one transaction with all that it takes."""
        stream, names = self.stream.id, ledger.segments
        first = self.last_batch() + 1
        ends = {name: position.line_offset for name, (position, _) in self.positions().items() if name in names}
        with self._connection.transaction():
            self._connection.execute("DELETE FROM coverage WHERE stream_id = %s AND epoch = %s", (stream, ledger.epoch))
            self._connection.execute(
                "DELETE FROM rejected_events WHERE stream_id = %s AND segment = ANY (%s)", (stream, names)
            )
            # Those that cannot be loaded this time either are parked anew.
            self._connection.execute(
                "UPDATE parked_frames SET resolved_batch = %s WHERE stream_id = %s AND segment = ANY (%s)",
                (first, stream, names),
            )
            yield
            last = self.last_batch()
            self._refuse_losses(first, ends)
            self._connection.execute(
                "UPDATE load_batches SET superseded_by = %s"
                " WHERE stream_id = %s AND batch < %s AND superseded_by IS NULL AND segment = ANY (%s)",
                (last, stream, first, names),
            )
            self._connection.execute(
                "UPDATE load_batches SET reload_to = %s WHERE stream_id = %s AND batch >= %s", (last, stream, first)
            )

    def _refuse_losses(self, first: int, ends: dict[str, int]) -> None:
        """Raise ReloadError where less of the journal could be read than when it was loaded before."""
        damages = self._connection.execute(
            "SELECT segment, from_byte, to_byte, detail FROM journal_damage WHERE stream_id = %s AND batch >= %s"
            " ORDER BY 1, 2",
            (self.stream.id, first),
        ).fetchall()
        lost = [f"{segment}, bytes {start} to {end}: {detail}" for segment, start, end, detail in damages]
        lost += [
            f"{name} ends at byte {position.line_offset} (uncompressed), it was loaded up to {ends[name]}"
            for name, (position, _) in self.positions().items()
            if position.line_offset < ends.get(name, 0)
        ]
        if lost:
            raise ReloadError(
                f"the journal can no longer be read as when it was loaded ({'; '.join(lost)}): loading it again would"
                " lose rows; nothing was changed; put back a whole copy of the segment and try again"
            )


def reload(
    folder: Path,
    dsn: str,
    ingestor: str,
    decoder: Decoder,
    names: Sequence[str] = (),
    *,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
    piece_bytes: int = PIECE_BYTES,
) -> list[Outcome]:
    """Load again the epochs of the segments named, or all that another version of the decoder has loaded.

    Epochs go one after the other; what was done before an error stays done. Raises UsageError, ReloadError,
    StreamTakenError, psycopg.Error.
    """
    outcomes: list[Outcome] = []
    with turns(), ReloadDatabase(dsn, ingestor, folder.name, decoder) as database:
        _lock(database, ingestor, folder.name)
        for ledger in _chosen(database.ledger(), folder, names):
            why_not = _why_not(ledger, folder, decoder.version)
            if why_not is not None and names and ledger.versions != [decoder.version]:
                raise ReloadError(f"epoch {ledger.epoch}: {why_not}")
            if why_not is None:
                totals = _reload(database, ledger, folder, piece_bytes)
            outcome = Outcome(
                ledger.epoch,
                ledger.segments,
                0 if why_not else ledger.batches,
                0 if why_not else ledger.rows,
                None if why_not else totals,
                why_not or "",
            )
            outcomes.append(outcome)
            on_outcome(outcome)
    return outcomes


def _lock(database: Database, ingestor: str, stream: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not database.try_lock():
        if time.monotonic() > until:
            raise StreamTakenError(
                f"stream {stream!r} of {ingestor} is being written: stop its loader, load again, start it;"
                " the journal keeps what comes meanwhile"
            )
        time.sleep(0.5)


def _chosen(ledgers: list[Ledger], folder: Path, names: Sequence[str]) -> list[Ledger]:
    """The epochs asked for; raises UsageError for a segment that was never loaded."""
    if not names:
        here = {segment_of(path).epoch for path in segments(folder)}
        return [ledger for ledger in ledgers if ledger.epoch in here]
    wanted = {Path(name).name for name in names}
    unknown = wanted - {name for ledger in ledgers for name in ledger.segments}
    if unknown:
        raise UsageError(
            f"never loaded from {folder}: {', '.join(sorted(unknown))}; expected names of segments there that were,"
            " as in 1700000000000000000-000000.journal.zst"
        )
    return [ledger for ledger in ledgers if wanted & set(ledger.segments)]


def _why_not(ledger: Ledger, folder: Path, version: str) -> str | None:
    """Why an epoch is not loaded again; None where it is to be."""
    if ledger.versions == [version]:
        return f"was loaded by this decoder ({version}) already"
    if missing := [name for name in ledger.segments if not (folder / name).is_file()]:
        return (
            f"{', '.join(missing)} not in {folder}, and what is covered follows from all segments of a connection:"
            " put them back first"
        )
    if not ledger.is_over or any(is_writer_alive(folder / name) for name in ledger.segments):
        return "the connection is not over, or not loaded to its end"
    return None


def _reload(database: ReloadDatabase, ledger: Ledger, folder: Path, piece_bytes: int) -> Totals:
    totals = Totals()
    with database.superseding(ledger):
        session = Session(database, totals)
        try:
            session.start_over(ledger.epoch, ledger.segments)
            for name in ledger.segments:
                source = SegmentSource(folder / name, Position())
                try:
                    while session.load(source, piece_bytes) and not session.positions[name][1]:
                        pass
                finally:
                    source.close()
            session.flush()
        finally:
            session.close()
    return totals
