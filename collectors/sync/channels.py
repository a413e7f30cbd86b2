"""What sync must know of a channel: its columns, what makes two events the same, and the statement that merges them.

Here by id: those of trades and quotes, first and last update id of book events; ``identities`` has the others.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct
from psycopg import sql

from collectors.events import Channel


class ChannelSpec(Struct, frozen=True):
    """One channel's table, the same name on ingestor and datalake."""

    name: Channel
    columns: tuple[tuple[str, str], ...]
    """Name and type of what is pulled, in the order of the wire."""
    identity: str
    """Equal for two copies of one event; columns of ``s``, the stage."""
    same: str
    """That ``s`` and the stored ``t`` are one event, apart from instrument."""
    missing_id: str
    """True for a row of ``s`` that has no identity."""
    payload: tuple[str, ...]
    event_id: str
    text: str
    """The text that digests hash; columns of the stored table."""
    slack: timedelta
    """How far the times of two copies may lie apart: not at all where the time is the exchange's own."""
    numbered: tuple[str, ...] = ()
    """Where the wire carries no id: the columns in which events are equal that are numbered within their epoch."""
    is_compared: bool = False
    """Whether a stream that lacks what another received loses its claim to have listened.

    Where every connection is sent every event under its id, but ids that rise by one: they told the loader already. Not
    quotes, which exchanges may sum up for each connection; books prove by their chain that they are whole.
    """


MICROSECONDS = "(date_part('epoch', t.time) * 1000000)::bigint"
TRADES = ChannelSpec(
    name="trades",
    columns=(
        ("received_at", "timestamptz"),
        ("time", "timestamptz"),
        ("epoch", "bigint"),
        ("instrument_id", "integer"),
        ("is_buy", "boolean"),
        ("trade_id", "text"),
        ("price", "numeric"),
        ("amount", "numeric"),
        ("buy_order_id", "text"),
        ("sell_order_id", "text"),
    ),
    identity='s.instrument_id, s.time, s.trade_id COLLATE "C"',
    same="t.time = s.time AND t.trade_id = s.trade_id",
    missing_id="trade_id IS NULL",
    payload=("is_buy", "price", "amount", "buy_order_id", "sell_order_id"),
    event_id="s.trade_id",
    text=(
        "trade_text(t.instrument_id, t.time, t.trade_id, t.is_buy, t.price, t.amount, t.buy_order_id, t.sell_order_id)"
    ),
    slack=timedelta(0),
    is_compared=True,
)
QUOTES = ChannelSpec(
    name="quotes",
    columns=(
        ("received_at", "timestamptz"),
        ("time", "timestamptz"),
        ("epoch", "bigint"),
        ("update_id", "bigint"),
        ("instrument_id", "integer"),
        ("bid_price", "numeric"),
        ("bid_amount", "numeric"),
        ("ask_price", "numeric"),
        ("ask_amount", "numeric"),
    ),
    identity="s.instrument_id, s.update_id",
    same="t.update_id = s.update_id",
    missing_id="update_id IS NULL",
    payload=("bid_price", "bid_amount", "ask_price", "ask_amount"),
    event_id="s.update_id::text",
    text="quote_text(t.instrument_id, t.update_id, t.bid_price, t.bid_amount, t.ask_price, t.ask_amount)",
    slack=timedelta(minutes=10),
)
BOOK_EVENTS = ChannelSpec(
    name="book_events",
    columns=(
        ("received_at", "timestamptz"),
        ("time", "timestamptz"),
        ("epoch", "bigint"),
        ("first_id", "bigint"),
        ("last_id", "bigint"),
        ("previous_id", "bigint"),
        ("instrument_id", "integer"),
        ("is_snapshot", "boolean"),
        ("bid_prices", "numeric[]"),
        ("bid_amounts", "numeric[]"),
        ("ask_prices", "numeric[]"),
        ("ask_amounts", "numeric[]"),
    ),
    identity="s.instrument_id, s.last_id, s.is_snapshot, s.first_id",
    # A snapshot has no first id; the comparison must stay an equality, or no join but the slowest can use it.
    same=(
        "t.last_id = s.last_id AND t.is_snapshot = s.is_snapshot"
        " AND coalesce(t.first_id, -1) = coalesce(s.first_id, -1)"
    ),
    missing_id="last_id IS NULL",
    payload=("bid_prices", "bid_amounts", "ask_prices", "ask_amounts"),
    event_id="concat(CASE WHEN s.is_snapshot THEN 'snapshot ' ELSE 'update ' END, s.first_id, '-', s.last_id)",
    text=(
        "book_event_text(t.instrument_id, t.is_snapshot, t.first_id, t.last_id,"
        " t.bid_prices, t.bid_amounts, t.ask_prices, t.ask_amounts)"
    ),
    slack=timedelta(minutes=10),
)
LIQUIDATIONS = ChannelSpec(
    name="liquidations",
    columns=(
        ("received_at", "timestamptz"),
        ("time", "timestamptz"),
        ("epoch", "bigint"),
        ("instrument_id", "integer"),
        ("is_buy", "boolean"),
        ("liquidation_id", "text"),
        ("price", "numeric"),
        ("amount", "numeric"),
    ),
    identity='s.instrument_id, s.time, s.liquidation_id COLLATE "C"',
    same="t.time = s.time AND t.liquidation_id = s.liquidation_id",
    missing_id="liquidation_id IS NULL",
    payload=("is_buy", "price", "amount"),
    event_id="s.liquidation_id",
    # Fields and forms as in trade_text (migration 0006): liquidations|instrument|µs|id|buy or sell|price|amount
    text=(
        f"concat('liquidations|', t.instrument_id, '|', {MICROSECONDS}, '|', t.liquidation_id,"
        " CASE t.is_buy WHEN true THEN '|buy|' WHEN false THEN '|sell|' ELSE '||' END, t.price, '|', t.amount)"
    ),
    slack=timedelta(0),
    is_compared=True,
)
DERIVATIVES = ChannelSpec(
    name="derivatives",
    columns=(
        ("received_at", "timestamptz"),
        ("time", "timestamptz"),
        ("epoch", "bigint"),
        ("funding_time", "timestamptz"),
        ("instrument_id", "integer"),
        ("funding_rate", "numeric"),
        ("open_interest", "numeric"),
        ("mark_price", "numeric"),
        ("index_price", "numeric"),
    ),
    identity="s.instrument_id, s.time",
    same="t.time = s.time",
    missing_id="true",
    payload=(),
    event_id="s.time::text",
    # derivatives|instrument|µs|funding rate|funding time in µs|open interest|mark price|index price
    text=(
        f"concat('derivatives|', t.instrument_id, '|', {MICROSECONDS}, '|', t.funding_rate, '|',"
        " (date_part('epoch', t.funding_time) * 1000000)::bigint, '|', t.open_interest, '|', t.mark_price, '|',"
        " t.index_price)"
    ),
    slack=timedelta(0),
)
SPECS: tuple[ChannelSpec, ...] = (TRADES, QUOTES, BOOK_EVENTS, DERIVATIVES, LIQUIDATIONS)
"""As they are merged by id; ``identities.specs`` has those of an exchange."""


class Extent(Struct, frozen=True):
    """What a stage holds: rows, rows without identity, instruments and the times between which they lie (UTC)."""

    rows: int
    missing_ids: int
    instruments: list[int]
    first: datetime
    last: datetime


def stage_name(spec: ChannelSpec) -> sql.Identifier:
    """The session's temporary table for rows just pulled."""
    return sql.Identifier(f"stage_{spec.name}{'_numbered' if spec.numbered else ''}")


def create_stage(spec: ChannelSpec) -> sql.Composed:
    """A table without index, WAL or statistics of others; emptied by every commit and rollback."""
    columns = sql.SQL(", ").join(sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in spec.columns)
    return sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} ({}) ON COMMIT DELETE ROWS").format(
        stage_name(spec), columns
    )


def copy_columns(spec: ChannelSpec) -> sql.Composed:
    """The columns in the one order in which the bytes are read and written."""
    return sql.SQL(", ").join(sql.Identifier(name) for name, _ in spec.columns)


def analyze_statement(spec: ChannelSpec) -> sql.Composed:
    """Statistics of the stage's columns but the payload: nothing is joined on it, and a book's arrays cost the most."""
    columns = sql.SQL(", ").join(sql.Identifier(name) for name, _ in spec.columns if name not in spec.payload)
    return sql.SQL("ANALYZE {} ({})").format(stage_name(spec), columns)


def extent_query(spec: ChannelSpec) -> sql.Composed:
    """Per instrument of the stage: rows, rows without identity, first and last time."""
    return sql.SQL(
        "SELECT instrument_id, count(*), count(*) FILTER (WHERE {missing}),"
        " min(coalesce(time, received_at)), max(coalesce(time, received_at)) FROM {stage} GROUP BY instrument_id"
    ).format(missing=sql.SQL(spec.missing_id), stage=stage_name(spec))


_DOUBTED = sql.SQL(
    """,
late AS (
    SELECT c.incarnation, c.stream, i.instrument_id, i.hour, min(i.time) AS first_time, max(i.time) AS last_time
    FROM inserted AS i
    INNER JOIN instruments AS n ON n.id = i.instrument_id
    INNER JOIN comparisons AS c ON c.exchange = n.exchange AND i.time < c.until
    GROUP BY c.incarnation, c.stream, i.instrument_id, i.hour
),
doubted AS (
    INSERT INTO doubts AS d (incarnation, stream, channel, instrument_id, hour, first_time, last_time)
    SELECT incarnation, stream, {channel}, instrument_id, hour, first_time, last_time FROM late AS l
    WHERE EXISTS (
        SELECT FROM coverage AS v
        WHERE
            v.incarnation = l.incarnation AND v.stream = l.stream AND v.instrument_id = l.instrument_id
            AND v.channel = {channel} AND v.started_at <= l.last_time
            AND coalesce(v.ended_at, 'infinity') >= l.first_time
    )
    ON CONFLICT (incarnation, stream, channel, instrument_id, hour) DO UPDATE
    SET first_time = least(d.first_time, excluded.first_time), last_time = greatest(d.last_time, excluded.last_time)
)
"""
)


def merge_statement(spec: ChannelSpec, extent: Extent, ingestor: str, *, doubting: bool = False) -> sql.Composed:
    """Insert what the history lacks and add it to the digests, in one statement; returns the number of rows inserted.

    Of the copies of an event in the stage the one received first is taken. What the history has is sorted out before
    the sort, which brings the rest to the table in the order of its indexes. With ``doubting`` streams that were
    compared before these events came are to be compared with them.
    """
    return sql.SQL(
        """
WITH inserted AS (
    INSERT INTO {table} AS t ({columns}, ingestor)
    SELECT DISTINCT ON ({identity}) {values}, s.ingestor
    FROM (SELECT {timed}, {ingestor} AS ingestor FROM {stage}) AS s
    WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {stored})
    ORDER BY {identity}, s.received_at
    RETURNING t.instrument_id, t.time, time_bucket('1 hour', t.time) AS hour, event_hash({text}) AS hash
),
digested AS (
    INSERT INTO digests AS d (instrument_id, channel, hour, rows, hash)
    SELECT instrument_id, {channel}, hour, count(*), sum(hash) FROM inserted GROUP BY instrument_id, hour
    ON CONFLICT (instrument_id, channel, hour)
    DO UPDATE SET rows = d.rows + excluded.rows, hash = d.hash + excluded.hash
){doubted}
SELECT count(*) FROM inserted
"""
    ).format(
        doubted=_DOUBTED.format(channel=sql.Literal(spec.name)) if doubting else sql.SQL(""),
        table=sql.Identifier(spec.name),
        columns=copy_columns(spec),
        identity=sql.SQL(spec.identity),
        values=sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(name)) for name, _ in spec.columns),
        ingestor=sql.Literal(ingestor),
        timed=timed_columns(spec),
        stage=stage_name(spec),
        stored=stored(spec, extent),
        text=sql.SQL(spec.text),
        channel=sql.Literal(spec.name),
    )


def contradictions_statement(spec: ChannelSpec, extent: Extent, ingestor: str) -> sql.Composed:
    """Note the rows of the stage whose event the history now has with another payload; returns their number."""

    def each(pattern: str) -> sql.SQL:
        return sql.SQL(", ".join(pattern.format(column) for column in spec.payload))

    return sql.SQL(
        """
WITH refused AS (
    SELECT
        s.instrument_id, {event_id} AS event_id, s.time, s.epoch,
        jsonb_build_object({kept}) AS kept, jsonb_build_object({refused}) AS refused
    FROM (SELECT {timed}, {ingestor} AS ingestor FROM {stage}) AS s
    INNER JOIN {table} AS t ON {stored}
    WHERE ROW({staged_payload}) IS DISTINCT FROM ROW({stored_payload})
),
noted AS (
    INSERT INTO sync_conflicts (instrument_id, channel, event_id, refused_hash, time, ingestor, epoch, kept, refused)
    SELECT instrument_id, {channel}, event_id, event_hash(refused::text), time, {ingestor}, epoch, kept, refused
    FROM refused
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM refused
"""
    ).format(
        event_id=sql.SQL(spec.event_id),
        kept=each("'{0}', t.{0}"),
        refused=each("'{0}', s.{0}"),
        timed=timed_columns(spec),
        stage=stage_name(spec),
        table=sql.Identifier(spec.name),
        stored=stored(spec, extent),
        staged_payload=each("s.{0}"),
        stored_payload=each("t.{0}"),
        channel=sql.Literal(spec.name),
        ingestor=sql.Literal(ingestor),
    )


def timed_columns(spec: ChannelSpec) -> sql.SQL:
    """The stage's columns, with the receive time where the wire carries no time."""
    return sql.SQL(
        ", ".join("coalesce(time, received_at) AS time" if name == "time" else name for name, _ in spec.columns)
    )


def stored(spec: ChannelSpec, extent: Extent) -> sql.Composed:
    """That ``t`` is the stored copy of ``s``.

    Instruments and times are literals, so that the planner opens only the chunks and index ranges where a copy can be.
    """
    return sql.SQL(
        "t.instrument_id = s.instrument_id AND {same}"
        " AND t.instrument_id = ANY ({instruments}) AND t.time >= {first} AND t.time <= {last}"
    ).format(
        same=sql.SQL(spec.same),
        instruments=sql.Literal(extent.instruments),
        first=sql.Literal(extent.first - spec.slack),
        last=sql.Literal(extent.last + spec.slack),
    )
