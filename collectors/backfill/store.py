"""The datalake's side of a backfill: what is missing, what was found out before, and pages of trades with progress.

A page's trades, their digests and how far the gap is filled commit together, under the lock under which sync merges: a
late batch with the same trades finds them, or they find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from collectors.backfill.plan import INGESTOR, Known, Missing, Plan, State
from collectors.coverage.model import Gap, Interval
from collectors.events import Trade
from collectors.sync import target
from collectors.sync.channels import ChannelSpec, copy_columns, create_stage, stage_name
from collectors.sync.identities import specs

SLACK = timedelta(minutes=10)
"""The exchange's clock may lie so far beside ours."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MISSING = """
WITH missing AS (
    SELECT unnest(nummultirange(numrange(%(first)s, %(last)s + 1)) - coalesce(
        range_agg(numrange(trade_id::numeric, trade_id::numeric + 1)), '{}'
    )) AS ids
    FROM trades
    WHERE
        instrument_id = %(id)s AND time >= %(start)s AND time <= %(end)s
        AND CASE WHEN trade_id ~ '^[0-9]{1,38}$' THEN trade_id::numeric BETWEEN %(first)s AND %(last)s ELSE false END
)
SELECT coalesce(sum(upper(ids) - lower(ids)), 0), min(lower(ids)), max(upper(ids)) - 1 FROM missing
"""
_EDGE_BEFORE = """
SELECT trade_id FROM trades
WHERE instrument_id = %s AND time <= %s AND time > %s::timestamptz - INTERVAL '2 days' AND trade_id ~ '^[0-9]{1,38}$'
ORDER BY time DESC, trade_id::numeric DESC LIMIT 1
"""
_EDGE_BEHIND = """
SELECT trade_id FROM trades
WHERE instrument_id = %s AND time >= %s AND time < %s::timestamptz + INTERVAL '2 days' AND trade_id ~ '^[0-9]{1,38}$'
ORDER BY time, trade_id::numeric LIMIT 1
"""
_NOTE = """
INSERT INTO backfills AS b (instrument_id, gap, after_id, before_id, position, state, rows, detail)
VALUES (
    %(id)s, tstzrange(%(start)s, %(end)s, '[]'), %(after)s, %(before)s, %(position)s, %(state)s, %(rows)s, %(detail)s
)
ON CONFLICT (instrument_id, gap) DO UPDATE SET
    after_id = coalesce(b.after_id, excluded.after_id), before_id = greatest(b.before_id, excluded.before_id),
    position = coalesce(excluded.position, b.position), state = excluded.state, rows = b.rows + excluded.rows,
    detail = excluded.detail, changed_at = now()
WHERE (b.state, b.detail) <> (excluded.state, excluded.detail) OR excluded.rows > 0
    OR excluded.position <> coalesce(b.position, -1)
"""


def missing_ids(connection: psycopg.Connection[Any], instrument_id: int, gap: Gap) -> Missing | None:
    """Ids in the gap that the history does not have; None where ids do not tell."""
    if gap.ids_between is None or gap.last_id_before is None or gap.first_id_after is None:
        return None
    first, last = int(gap.last_id_before) + 1, int(gap.first_id_after) - 1
    if last < first:
        return Missing(0)
    of = {"id": instrument_id, "first": first, "last": last, "start": gap.start - SLACK, "end": gap.end + SLACK}
    row = connection.execute(_MISSING, of).fetchone()
    assert row is not None
    return Missing(int(row[0]), None if row[1] is None else int(row[1]), None if row[2] is None else int(row[2]))


def edges(connection: psycopg.Connection[Any], instrument_id: int, span: Interval) -> tuple[str | None, str | None]:
    """The last trade known before and the first one behind, for where coverage names none (nothing traded in it)."""
    before = connection.execute(_EDGE_BEFORE, [instrument_id, span.start, span.start]).fetchone()
    behind = connection.execute(_EDGE_BEHIND, [instrument_id, span.end, span.end]).fetchone()
    return before[0] if before else None, behind[0] if behind else None


def known(connection: psycopg.Connection[Any], instrument_id: int, span: Interval) -> Known | None:
    """What was found out about this gap, or about a longer one that it is what is left of."""
    row = connection.execute(
        "SELECT state, detail, position, rows FROM backfills WHERE instrument_id = %s"
        " AND gap @> tstzrange(%s, %s, '[]') ORDER BY changed_at DESC LIMIT 1",
        [instrument_id, span.start, span.end],
    ).fetchone()
    return None if row is None else Known(row[0], row[1], None if row[2] is None else int(row[2]), int(row[3]))


def note(
    connection: psycopg.Connection[Any],
    plan: Plan,
    state: State,
    detail: str,
    *,
    rows: int = 0,
    position: int | None = None,
) -> bool:
    """Keep how far a gap is; whether that is news."""
    of = {"id": plan.instrument_id, "start": plan.start, "end": plan.end, "after": plan.after, "before": plan.before}
    values = of | {"state": state, "detail": detail, "rows": rows, "position": position}
    return connection.execute(_NOTE, values).rowcount > 0


def add(connection: psycopg.Connection[Any], plan: Plan, trades: Sequence[Trade], position: int) -> int:
    """Merge a page's trades and move the gap's position, in one transaction; returns how many were new."""
    (spec,) = (spec for spec in specs(plan.exchange) if spec.name == "trades")
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [target.LOCK])
        target.tune(connection)
        new = _unknown(connection, plan.instrument_id, trades)
        inserted = 0
        if new:
            _stage(connection, spec, plan.instrument_id, new)
            inserted = target.merge(connection, spec, INGESTOR).inserted
        note(connection, plan, "open", plan.detail, rows=inserted, position=position)
    return inserted


def _unknown(connection: psycopg.Connection[Any], instrument_id: int, trades: Sequence[Trade]) -> list[Trade]:
    """Those whose id the history does not have near their time, whatever digits of that time it has."""
    if not trades:
        return []
    times = [moment(trade.time) for trade in trades]
    have = {
        row[0]
        for row in connection.execute(
            "SELECT trade_id FROM trades"
            " WHERE instrument_id = %s AND time >= %s AND time <= %s AND trade_id = ANY (%s)",
            [instrument_id, min(times) - SLACK, max(times) + SLACK, [trade.trade_id for trade in trades]],
        )
    }
    return [trade for trade in trades if trade.trade_id not in have]


def _stage(connection: psycopg.Connection[Any], spec: ChannelSpec, instrument_id: int, trades: Sequence[Trade]) -> None:
    """The stage that sync merges from, filled with text: numbers arrive as the exchange wrote them."""
    connection.execute(create_stage(spec))
    received_at = datetime.now(UTC)
    columns = copy_columns(spec)
    statement = psycopg.sql.SQL("COPY {} ({}) FROM STDIN").format(stage_name(spec), columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for trade in trades:
            row = {
                "received_at": received_at,
                "time": moment(trade.time),
                "epoch": 0,
                "instrument_id": instrument_id,
                "is_buy": trade.is_buy,
                "trade_id": trade.trade_id,
                "price": trade.price,
                "amount": trade.amount,
                "buy_order_id": trade.buy_order_id,
                "sell_order_id": trade.sell_order_id,
            }
            copy.write_row([row[name] for name, _ in spec.columns])


def moment(time_ns: int) -> datetime:
    """ns since 1970 as PostgreSQL keeps it, to the µs."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)
