"""Whether a stream received what others did while it claims to have listened; where not, its coverage is revoked.

The contract. Of an event that the history has, that happened inside an interval of a stream's coverage, and that this
stream's ingestor does not hold, the interval no longer testifies (``coverage.revoked``) to the receive times between
the stream's own events next to it: from the one before, or the interval's start, to the one behind, or its end; while
none has come behind it, without an end. What is revoked follows from the history and from what the ingestor holds, not
from who was merged first: a stream is compared up to where it is merged itself (table ``comparisons``), and again with
what comes later from before that (table ``doubts``).

Near the ends of an interval nothing is judged, as clocks differ. Where an ingestor has pruned its rows, nobody knows
any more which of them it held: then all between the first and the last event that came later is revoked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from msgspec import Struct
from psycopg import sql

from collectors.sync import source, target
from collectors.sync.channels import ChannelSpec, analyze_statement, stage_name, timed_columns
from collectors.sync.identities import specs
from collectors.sync.source import Stream

_NEAR: Final = timedelta(minutes=10)
"""How much earlier or later than an event's time its copy is looked for."""
_PIECE: Final = timedelta(hours=1)
"""Compared at once: what the temporary table must hold."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = timedelta(microseconds=1)


class Pace(Struct, frozen=True):
    """How streams are compared.

    One that is still connected is compared ``step`` at a time: its rows are read again for it, and some around.
    ``margin`` is how far an ingestor's clock may be from the exchange's, together with the time an event takes.
    """

    step: timedelta = timedelta(minutes=5)
    margin: timedelta = timedelta(seconds=30)


USUAL: Final = Pace()


class Window(Struct, frozen=True):
    """Events of the time from ``since`` and before ``until``."""

    since: datetime
    until: datetime

    @property
    def wider(self) -> Window:
        """With what lies next to it."""
        return Window(self.since - _NEAR, self.until + _NEAR)


class Doubt(Struct, frozen=True):
    """Within an hour the events of some instruments that came after the stream had been compared."""

    hour: datetime
    window: Window
    instruments: list[int]


def check_claims(
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    incarnation: UUID,
    stream: Stream,
    pace: Pace = USUAL,
) -> int:
    """Compare a stream, all of whose batches are merged, with the history, as far as it is due; the events it missed.

    Raises SourceError, psycopg.Error; what was compared before stays compared.
    """
    compared = [spec for spec in specs(stream.exchange) if spec.is_compared]
    if not compared:
        return 0
    since, until = _due(lake, incarnation, stream, pace)
    missed = 0
    with ingestor.transaction():
        for spec in compared:
            for doubt in _doubts(lake, incarnation, stream, spec):
                with lake.transaction():
                    missed += _judge(lake, ingestor, incarnation, stream, spec, pace, doubt.window, doubt.instruments)
                    lake.execute(
                        "DELETE FROM doubts WHERE incarnation = %s AND stream = %s AND channel = %s AND hour = %s",
                        [incarnation, stream.key, spec.name, doubt.hour],
                    )
        for window in pieces(since, until):
            with lake.transaction():
                for spec in compared:
                    missed += _judge(lake, ingestor, incarnation, stream, spec, pace, window)
                lake.execute(
                    "INSERT INTO comparisons (incarnation, stream, exchange, until) VALUES (%s, %s, %s, %s)"
                    " ON CONFLICT (incarnation, stream) DO UPDATE SET until = excluded.until",
                    [incarnation, stream.key, stream.exchange, window.until],
                )
    return missed


def compare_anew(lake: psycopg.Connection[Any], incarnation: UUID, stream: Stream, epoch: int) -> None:
    """A connection's rows and coverage are others than they were: compare the stream from its beginning on."""
    lake.execute(
        "UPDATE comparisons AS c SET until = least(c.until, n.opened_at) FROM connections AS n"
        " WHERE c.incarnation = %s AND c.stream = %s"
        " AND n.incarnation = c.incarnation AND n.stream = c.stream AND n.epoch = %s",
        [incarnation, stream.key, epoch],
    )


def pieces(since: datetime, until: datetime) -> Iterator[Window]:
    """The time between in pieces that are small enough, in order; none where it is not before."""
    while since < until:
        end = min(since + _PIECE, until)
        yield Window(since, end)
        since = end


_REACH = """
SELECT
    (SELECT until FROM comparisons WHERE incarnation = %(incarnation)s AND stream = %(stream)s),
    min(opened_at), max(alive_until),
    min(alive_until) FILTER (WHERE closed_at IS NULL AND alive_until > newest - %(hour)s)
FROM (
    SELECT *, max(alive_until) OVER () AS newest FROM connections
    WHERE incarnation = %(incarnation)s AND stream = %(stream)s
) AS c
"""


def _due(lake: psycopg.Connection[Any], incarnation: UUID, stream: Stream, pace: Pace) -> tuple[datetime, datetime]:
    """Between which times the stream is to be compared; the second is not behind the first where nothing is due.

    A connection that was forgotten open long before the newest counts as ended.
    """
    row = lake.execute(_REACH, {"incarnation": incarnation, "stream": stream.key, "hour": _PIECE}).fetchone()
    assert row is not None
    compared, opened, ended, alive = row
    if opened is None:
        return _BEGINNING, _BEGINNING
    since = opened if compared is None else compared
    until = ended + _MOMENT if alive is None else alive - pace.margin
    return since, until if alive is None or until - since >= pace.step else since


def note_late(lake: psycopg.Connection[Any], spec: ChannelSpec, incarnation: UUID, stream: Stream) -> None:
    """Rows in the stage from a time for which their own stream was compared: it may have been thought to lack them."""
    if not spec.is_compared:
        return
    lake.execute(
        sql.SQL(
            "INSERT INTO doubts AS d (incarnation, stream, channel, instrument_id, hour, first_time, last_time)"
            " SELECT c.incarnation, c.stream, {channel}, s.instrument_id, date_trunc('hour', s.time, 'UTC'),"
            " min(s.time), max(s.time) FROM (SELECT {timed} FROM {stage}) AS s INNER JOIN comparisons AS c"
            " ON c.incarnation = {incarnation} AND c.stream = {stream} AND s.time < c.until"
            " GROUP BY c.incarnation, c.stream, s.instrument_id, date_trunc('hour', s.time, 'UTC')"
            " ON CONFLICT (incarnation, stream, channel, instrument_id, hour) DO UPDATE"
            " SET first_time = least(d.first_time, excluded.first_time),"
            " last_time = greatest(d.last_time, excluded.last_time)"
        ).format(
            channel=sql.Literal(spec.name),
            timed=timed_columns(spec),
            stage=stage_name(spec),
            incarnation=sql.Literal(incarnation),
            stream=sql.Literal(stream.key),
        )
    )


def _doubts(lake: psycopg.Connection[Any], incarnation: UUID, stream: Stream, spec: ChannelSpec) -> list[Doubt]:
    rows = lake.execute(
        "SELECT hour, min(first_time), max(last_time), array_agg(instrument_id ORDER BY instrument_id) FROM doubts"
        " WHERE incarnation = %s AND stream = %s AND channel = %s GROUP BY hour ORDER BY hour",
        [incarnation, stream.key, spec.name],
    ).fetchall()
    return [Doubt(hour, Window(first, last + _MOMENT), instruments) for hour, first, last, instruments in rows]


def _judge(  # noqa: PLR0917 - two callers, right above
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    incarnation: UUID,
    stream: Stream,
    spec: ChannelSpec,
    pace: Pace,
    window: Window,
    doubted: list[int] | None = None,
) -> int:
    """Revoke what the window shows to be missing; of instruments that are doubted, revoke only that from now on.

    Returns how many events were missed.
    """
    suspects = _suspects(lake, incarnation, stream, spec, window) if doubted is None else doubted
    if not suspects:
        return 0
    whole = window
    if doubted is not None:
        whole = _with_revoked(lake, incarnation, stream, spec, window.wider, suspects).wider
    around = whole.wider
    is_pruned = source.is_pruned(ingestor, spec.name, around.since, around.until)
    if is_pruned and doubted is None:
        return 0  # compared too late: what it held is not known, and nothing speaks against it
    if is_pruned:
        around = window.wider
    else:
        window = whole
    target.tune(lake)
    target.refill(lake, ingestor, spec, source.received_rows(spec, stream, around.since, around.until))
    lake.execute(analyze_statement(spec))
    statement = _revoke(
        spec,
        incarnation,
        stream,
        pace,
        window,
        suspects,
        is_pruned=is_pruned,
        anew=doubted is not None and not is_pruned,
    )
    missed = 0
    for instrument, interval, count, stretches in lake.execute(statement).fetchall():
        missed += count
        structlog.get_logger().warning(
            "an ingestor did not receive what others did: its coverage is revoked there",
            stream=stream.key,
            channel=spec.name,
            instrument=instrument,
            coverage=interval,
            events=count,
            stretches=str(stretches),
        )
    return missed


def _with_revoked(  # noqa: PLR0917 - one caller, right above
    lake: psycopg.Connection[Any],
    incarnation: UUID,
    stream: Stream,
    spec: ChannelSpec,
    window: Window,
    instruments: list[int],
) -> Window:
    """The window with all that is revoked and reaches into it, so that it can be judged anew as a whole."""
    row = lake.execute(
        "SELECT min(greatest(lower(r), c.started_at)), max(least(upper(r), c.ended_at, n.alive_until))"
        " FROM coverage AS c LEFT JOIN connections AS n USING (incarnation, stream, epoch)"
        " CROSS JOIN unnest(c.revoked) AS r"
        " WHERE c.incarnation = %s AND c.stream = %s AND c.channel = %s AND c.instrument_id = ANY (%s)"
        " AND c.revoked <> '{}' AND r && tstzrange(%s, %s)",
        [incarnation, stream.key, spec.name, instruments, window.since, window.until],
    ).fetchone()
    if row is None or row[0] is None or row[1] is None:
        return window
    return Window(min(window.since, row[0]), max(window.until, row[1]))


def _suspects(
    lake: psycopg.Connection[Any],
    incarnation: UUID,
    stream: Stream,
    spec: ChannelSpec,
    window: Window,
) -> list[int]:
    """Instruments of which others received something in the window, or of which the stream received nothing lately."""
    row = lake.execute(
        "SELECT EXISTS (SELECT FROM connections WHERE exchange = %s AND ingestor <> %s AND opened_at < %s"
        " AND alive_until >= %s)",
        [stream.exchange, stream.ingestor, window.until + _NEAR, window.since - _NEAR],
    ).fetchone()
    is_alone = row == (False,)
    found = lake.execute(
        sql.SQL(
            "SELECT i.id FROM instruments AS i WHERE i.exchange = {exchange} AND ("
            "EXISTS (SELECT FROM coverage AS c WHERE c.instrument_id = i.id AND c.channel = {channel}"
            " AND c.revoked <> '{{}}' AND upper_inf(c.revoked) AND c.incarnation = {incarnation}"
            " AND c.stream = {stream} AND coalesce(c.ended_at, 'infinity') >= {since})"
            " OR NOT {is_alone} AND EXISTS (SELECT FROM {table} AS t WHERE t.instrument_id = i.id"
            " AND t.time >= {since} AND t.time < {until} AND t.ingestor <> {ingestor})) ORDER BY i.id"
        ).format(
            exchange=sql.Literal(stream.exchange),
            channel=sql.Literal(spec.name),
            incarnation=sql.Literal(incarnation),
            stream=sql.Literal(stream.key),
            ingestor=sql.Literal(stream.ingestor),
            table=sql.Identifier(spec.name),
            since=sql.Literal(window.since),
            until=sql.Literal(window.until),
            is_alone=sql.Literal(is_alone),
        )
    ).fetchall()
    return [row[0] for row in found]


def _revoke(  # noqa: PLR0917 - one caller
    spec: ChannelSpec,
    incarnation: UUID,
    stream: Stream,
    pace: Pace,
    window: Window,
    instruments: list[int],
    *,
    is_pruned: bool,
    anew: bool,
) -> sql.Composed:
    """Update the coverage rows of the window and return those of them in which something was missed.

    Of the stream's own events the receive time is taken from its own copy, or, where that is out of reach, from the
    history's. A row that the history has from this very ingestor was received. Trades that the exchange told long
    afterwards (backfill) are evidence as others are, and lie next to nothing.
    """
    around = window.wider
    return sql.SQL(
        """
WITH heard AS MATERIALIZED (
    SELECT DISTINCT ON ({identity}) s.*
    FROM (SELECT {timed}, {ingestor}::text AS ingestor FROM {stage}) AS s
    ORDER BY {identity}, s.received_at
),
claims AS MATERIALIZED (
    SELECT
        c.id, c.instrument_id, c.started_at, c.revoked,
        coalesce(c.ended_at, greatest(n.alive_until, c.started_at)) AS ended_at
    FROM coverage AS c
    LEFT JOIN connections AS n USING (incarnation, stream, epoch)
    WHERE
        c.incarnation = {incarnation} AND c.stream = {stream} AND c.channel = {channel}
        AND c.instrument_id = ANY ({instruments}) AND c.started_at < {window_until}
        AND coalesce(c.ended_at, n.alive_until) >= {window_since}
),
events AS (
    SELECT
        c.id, c.started_at, c.ended_at, t.time, (SELECT {event_id} FROM (SELECT t.*) AS s) AS event_id,
        coalesce(s.received_at, t.received_at) AS received_at,
        CASE
            WHEN s.received_at IS NOT NULL OR t.ingestor = {ingestor} THEN true
            WHEN {is_pruned} THEN t.time < {window_since} OR t.time >= {window_until}
            ELSE false
        END AS is_heard
    FROM claims AS c
    INNER JOIN {table} AS t ON t.instrument_id = c.instrument_id AND t.time BETWEEN c.started_at AND c.ended_at
    LEFT JOIN heard AS s ON s.instrument_id = t.instrument_id AND {same}
    WHERE t.instrument_id = ANY ({instruments}) AND t.time >= {since} AND t.time < {until}
),
placed AS (
    SELECT
        *,
        max(received_at) FILTER (WHERE is_heard) OVER (
            PARTITION BY id ORDER BY time, length(event_id), event_id
        ) AS before,
        min(received_at) FILTER (WHERE is_heard) OVER (
            PARTITION BY id ORDER BY time DESC, length(event_id) DESC, event_id DESC
        ) AS behind
    FROM events
),
missed AS (
    SELECT id, before, behind, count(*) AS events
    FROM placed
    WHERE
        NOT is_heard AND time >= {window_since} AND time < {window_until}
        AND time >= started_at + {margin} AND time <= ended_at - {margin}
    GROUP BY id, before, behind
),
bounded AS (
    SELECT
        m.id, m.events,
        coalesce(m.before, (
            SELECT t.received_at FROM {table} AS t
            WHERE t.instrument_id = c.instrument_id AND t.time < {since} AND t.time >= c.started_at AND {is_told}
            ORDER BY t.time DESC LIMIT 1
        )) AS before,
        coalesce(m.behind, (
            SELECT t.received_at FROM {table} AS t
            WHERE
                t.instrument_id = c.instrument_id AND t.time >= {until} AND t.time <= c.ended_at AND {is_told}
                AND t.time < (
                    SELECT q.until FROM comparisons AS q WHERE q.incarnation = {incarnation} AND q.stream = {stream}
                )
            ORDER BY t.time LIMIT 1
        )) AS behind
    FROM missed AS m INNER JOIN claims AS c USING (id)
),
stretches AS (
    SELECT
        id, sum(events)::bigint AS events,
        range_agg(CASE
            WHEN before >= behind THEN tstzrange(behind, before, '[]')
            ELSE tstzrange(before, behind, '()')
        END) AS revoked
    FROM bounded GROUP BY id
),
resumed AS (
    SELECT id, min(received_at) AS at FROM placed WHERE is_heard AND time >= {window_since} GROUP BY id
),
judged AS (
    SELECT
        c.id, c.instrument_id, coalesce(s.events, 0) AS events, s.revoked AS stretches,
        CASE
            WHEN {anew} THEN (
                SELECT coalesce(range_agg(r), '{{}}') FROM unnest(c.revoked) AS r
                WHERE NOT r * tstzrange(c.started_at, c.ended_at, '[]') <@ tstzrange(
                    {window_since} + {margin}, {window_until} - {margin}
                )
            )
            WHEN upper_inf(c.revoked) AND r.at IS NOT NULL THEN c.revoked - tstzmultirange(tstzrange(r.at, NULL))
            ELSE c.revoked
        END + coalesce(s.revoked, '{{}}') AS revoked
    FROM claims AS c LEFT JOIN stretches AS s USING (id) LEFT JOIN resumed AS r USING (id)
),
changed AS (
    UPDATE coverage AS c SET revoked = j.revoked FROM judged AS j
    WHERE c.incarnation = {incarnation} AND c.id = j.id AND c.revoked <> j.revoked
    RETURNING c.id
)
SELECT j.instrument_id, j.id, j.events, j.stretches FROM judged AS j INNER JOIN changed USING (id) WHERE j.events > 0
"""
    ).format(
        identity=sql.SQL(spec.identity),
        timed=timed_columns(spec),
        ingestor=sql.Literal(stream.ingestor),
        stage=stage_name(spec),
        incarnation=sql.Literal(incarnation),
        stream=sql.Literal(stream.key),
        channel=sql.Literal(spec.name),
        instruments=sql.Literal(instruments),
        table=sql.Identifier(spec.name),
        event_id=sql.SQL(spec.event_id),
        same=sql.SQL(spec.same),
        is_told=sql.SQL("t.ingestor NOT LIKE 'backfill:%'"),
        window_since=sql.Literal(window.since),
        window_until=sql.Literal(window.until),
        since=sql.Literal(around.since),
        until=sql.Literal(around.until),
        margin=sql.Literal(pace.margin),
        is_pruned=sql.Literal(is_pruned),
        anew=sql.Literal(anew),
    )
