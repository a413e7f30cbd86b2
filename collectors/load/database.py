"""The ingestor's database as the loader sees it: what it left there, and one transaction for each batch."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.decode import Decoder
from collectors.errors import CryptopipError
from collectors.events import CHANNELS
from collectors.journal import Position
from collectors.load.batch import Batch, Instruments, Stream
from collectors.load.coverage import Coverage, Interval
from collectors.load.text import COLUMNS, timestamp_text

_LOCK_CLASS: Final = 0x6C6F6164
"""First half of the advisory locks' keys, "load"; the stream's id is the second."""
_CHUNK_ROWS: Final = 20_000
_PARKED_AT_ONCE: Final = 10_000


class StreamTakenError(CryptopipError):
    """Another loader writes this stream."""


class ParkedFrame(Struct, frozen=True):
    """A line to try again."""

    id: int
    segment: str
    line_offset: int
    line_length: int
    epoch: int
    received_at: int
    detail: str


class Database:
    """One connection, hence one thread at a time. Every method may raise psycopg.Error; then make another Database."""

    def __init__(self, dsn: str, ingestor: str, name: str, decoder: Decoder) -> None:
        """Connect and find or make the stream ``name`` of ``ingestor``."""
        self._connection = psycopg.connect(
            dsn,
            autocommit=True,
            client_encoding="UTF8",
            options="-c timezone=UTC -c datestyle=ISO",
            application_name=f"cryptopip load {name}",
        )
        try:
            self.stream = Stream(self._stream_id(ingestor, name, decoder.exchange), decoder)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection, and with it the lock."""
        self._connection.close()

    def _stream_id(self, ingestor: str, name: str, exchange: str) -> int:
        key = (ingestor, name)
        query = "SELECT id FROM streams WHERE ingestor = %s AND name = %s"
        row = self._connection.execute(query, key).fetchone()
        if row is None:
            self._connection.execute(
                "INSERT INTO streams (ingestor, name, exchange) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (*key, exchange),
            )
            row = self._connection.execute(query, key).fetchone()
        assert row is not None
        return int(row[0])

    def try_lock(self) -> bool:
        """Whether this is the stream's one writer from here on; ask again where another still is.

        The lock outlives a killed loader until the server has ended what it was doing, so that what is read behind it
        is final.
        """
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_CLASS, self.stream.id)).fetchone()
        return row is not None and bool(row[0])

    def damages(self, segment: str) -> int:
        """How many stretches of a segment could not be read."""
        row = self._connection.execute(
            "SELECT count(*) FROM journal_damage WHERE stream_id = %s AND segment = %s", (self.stream.id, segment)
        ).fetchone()
        assert row is not None
        return int(row[0])

    def last_batch(self) -> int:
        """Number of the stream's last batch, 0 before the first."""
        row = self._connection.execute(
            "SELECT coalesce(max(batch), 0) FROM load_batches WHERE stream_id = %s", (self.stream.id,)
        ).fetchone()
        assert row is not None
        return int(row[0])

    def positions(self) -> dict[str, tuple[Position, bool]]:
        """Position by segment, and whether the segment is done."""
        rows = self._connection.execute(
            "SELECT segment, frame, frame_offset, line_offset, done FROM journal_positions WHERE stream_id = %s",
            (self.stream.id,),
        )
        return {segment: (Position(*place), done) for segment, *place, done in rows}

    def coverages(self) -> dict[int, Coverage]:
        """State of each epoch that is not over, by epoch."""
        rows = self._connection.execute(
            "SELECT epoch, state FROM coverage_states WHERE stream_id = %s", (self.stream.id,)
        )
        return {epoch: Coverage.load(bytes(state)) for epoch, state in rows}

    def epochs(self) -> dict[int, str]:
        """A segment of each epoch seen so far, by epoch."""
        rows = self._connection.execute(
            "SELECT epoch, min(segment) FROM journal_positions WHERE stream_id = %s GROUP BY epoch", (self.stream.id,)
        )
        return {int(epoch): str(segment) for epoch, segment in rows}

    def instruments(self) -> Instruments:
        """The exchange's instruments."""
        rows = self._connection.execute(
            "SELECT native_id, id, (extract(epoch FROM listed_at) * 1e9)::bigint FROM instruments WHERE exchange = %s",
            (self.stream.decoder.exchange,),
        )
        return Instruments((str(native_id), int(one), int(listed_at)) for native_id, one, listed_at in rows)

    def parked(self, after: tuple[int, str, int]) -> list[ParkedFrame]:
        """Lines worth another try, of the first segment that has any behind ``after`` (epoch, segment, line offset).

        Those are the ones parked for want of an instrument, or by another version of the decoder.
        """
        epoch, segment, line_offset = after
        rows = self._connection.execute(
            """
            SELECT p.id, p.segment, p.line_offset, p.line_length, p.epoch,
                   (extract(epoch FROM p.received_at) * 1e9)::bigint, p.detail
            FROM parked_frames AS p
            INNER JOIN load_batches AS b USING (stream_id, batch)
            WHERE p.stream_id = %(stream)s AND p.resolved_batch IS NULL
                AND (p.epoch, p.segment, p.line_offset) > (%(epoch)s, %(segment)s::text, %(line_offset)s)
                AND (p.reason = 'unknown_instrument' OR b.decoder_version <> %(version)s)
            ORDER BY p.epoch, p.segment, p.line_offset
            LIMIT %(limit)s
            """,
            {
                "stream": self.stream.id,
                "version": self.stream.decoder.version,
                "epoch": epoch,
                "segment": segment,
                "line_offset": line_offset,
                "limit": _PARKED_AT_ONCE,
            },
        ).fetchall()
        return [ParkedFrame(*row) for row in rows if row[1] == rows[0][1]]

    def commit(self, batch: Batch, coverage: Coverage | None, ids: dict[str, int]) -> int:
        """Write a batch: rows, ledger, position and coverage in one transaction. Returns the number of rows."""
        rows = 0
        with self._connection.transaction(), self._connection.cursor() as cursor:
            self._ledger(cursor, batch)
            for channel in CHANNELS:
                texts = batch.rows[channel]
                if not texts:
                    continue
                copy_sql = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(channel), sql.SQL(COLUMNS[channel]))
                with cursor.copy(copy_sql) as copy:
                    for at in range(0, len(texts), _CHUNK_ROWS):
                        copy.write("".join(texts[at : at + _CHUNK_ROWS]).encode())
                rows += len(texts)
            if coverage is not None:
                self._coverage(cursor, batch, coverage, ids)
        return rows

    def _ledger(self, cursor: psycopg.Cursor, batch: Batch) -> None:
        stream, key = self.stream, (self.stream.id, batch.number)
        counts = [len(batch.rows[channel]) for channel in CHANNELS]
        cursor.execute(
            "INSERT INTO load_batches (stream_id, batch, segment, from_offset, to_offset, decoder_version,"
            " received_from, received_to, frames, trades, quotes, book_events, derivatives, liquidations, parked,"
            " rejected) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *key,
                batch.segment,
                batch.from_offset,
                batch.to_offset,
                stream.decoder.version,
                batch.received_from,
                batch.received_to,
                batch.frames,
                *counts,
                len(batch.parked),
                len(batch.rejected),
            ),
        )
        if batch.position is not None:
            p = batch.position
            cursor.execute(
                "INSERT INTO journal_positions VALUES (%s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (stream_id, segment) DO UPDATE SET (frame, frame_offset, line_offset, done)"
                " = (excluded.frame, excluded.frame_offset, excluded.line_offset, excluded.done)",
                (stream.id, batch.segment, batch.epoch, p.frame, p.frame_offset, p.line_offset, batch.is_done),
            )
        if batch.resolved:
            cursor.execute(
                "UPDATE parked_frames SET resolved_batch = %s WHERE id = ANY(%s)", (batch.number, batch.resolved)
            )
        # A line that was parked before and still cannot be loaded stays one row; its batch tells the decoder's version.
        cursor.executemany(
            "INSERT INTO parked_frames (stream_id, batch, segment, line_offset, line_length, epoch, received_at,"
            " reason, detail) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (stream_id, segment, line_offset) DO UPDATE"
            " SET (batch, reason, detail, resolved_batch) = (excluded.batch, excluded.reason, excluded.detail, NULL)",
            [
                (
                    *key,
                    batch.segment,
                    one.line_offset,
                    one.line_length,
                    batch.epoch,
                    timestamp_text(one.received_at),
                    one.reason,
                    one.detail,
                )
                for one in batch.parked
            ],
        )
        cursor.executemany(
            "INSERT INTO rejected_events VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb)",
            [
                (
                    *key,
                    batch.segment,
                    one.line_offset,
                    one.line_length,
                    timestamp_text(one.received_at),
                    str(one.event_time),
                    one.channel,
                    one.native_id,
                    one.reason,
                    one.event.decode(),
                )
                for one in batch.rejected
            ],
        )
        # A reader that starts anew at a position tells the damage behind it again.
        cursor.executemany(
            "INSERT INTO journal_damage SELECT %s, %s, %s, %s, %s, %s WHERE NOT EXISTS"
            " (SELECT FROM journal_damage WHERE stream_id = %s AND segment = %s AND from_byte = %s)",
            [
                (*key, batch.segment, one.from_byte, one.to_byte, one.detail, stream.id, batch.segment, one.from_byte)
                for one in batch.damages
            ],
        )

    def _coverage(self, cursor: psycopg.Cursor, batch: Batch, coverage: Coverage, ids: dict[str, int]) -> None:
        stream_id = self.stream.id
        cursor.execute(
            "INSERT INTO connections VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (stream_id, epoch) DO UPDATE"
            " SET (opened_at, alive_until, closed_at, ended_by, batch) ="
            " (excluded.opened_at, excluded.alive_until, excluded.closed_at, excluded.ended_by, excluded.batch)",
            (
                stream_id,
                batch.epoch,
                timestamp_text(coverage.opened_at),
                timestamp_text(coverage.alive),
                _time(coverage.closed_at),
                coverage.ended_by,
                batch.number,
            ),
        )
        for interval in batch.intervals:
            self._interval(cursor, batch, interval, ids[interval.native_id])
        if coverage.ended_by is not None and not coverage.unplaced:
            cursor.execute("DELETE FROM coverage_states WHERE stream_id = %s AND epoch = %s", (stream_id, batch.epoch))
        else:
            cursor.execute(
                "INSERT INTO coverage_states VALUES (%s, %s, %s)"
                " ON CONFLICT (stream_id, epoch) DO UPDATE SET state = excluded.state",
                (stream_id, batch.epoch, batch.state),
            )

    def _interval(self, cursor: psycopg.Cursor, batch: Batch, one: Interval, instrument_id: int) -> None:
        key = (self.stream.id, batch.epoch, instrument_id, one.channel)
        values = (
            _time(one.ended_at),
            None if one.first_id is None else str(one.first_id),
            None if one.last_id is None else str(one.last_id),
            _time(one.first_time),
            _time(one.last_time),
            one.ended_by,
            batch.number,
        )
        if one.is_new:
            cursor.execute(
                "INSERT INTO coverage (stream_id, epoch, instrument_id, channel, started_at, proof, ended_at, first_id,"
                " last_id, first_time, last_time, ended_by, batch)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (*key, timestamp_text(one.started_at), "sequence" if one.is_sequence else "heartbeat", *values),
            )
        else:
            cursor.execute(
                "UPDATE coverage SET ended_at = %s, first_id = %s, last_id = %s, first_time = %s, last_time = %s,"
                " ended_by = %s, batch = %s WHERE stream_id = %s AND epoch = %s AND instrument_id = %s AND channel = %s"
                " AND ended_at IS NULL",
                (*values, *key),
            )


def _time(ns: int | None) -> str | None:
    return None if ns is None else timestamp_text(ns)
