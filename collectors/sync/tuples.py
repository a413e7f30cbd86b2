"""Channels whose events carry no id: equal events are numbered where they were received, and the number joins the key.

Two equal fills of one moment are two events, received twice on every connection; an event received on two connections
is one. So equal rows of one epoch are numbered 1..n in the order of their batches, and the union over all epochs of all
ingestors keeps as many as any one connection received. A connection that sends an event again much later (the last
trades on a new subscription) starts over at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg import sql

from collectors.sync.channels import ChannelSpec
from collectors.sync.plan import BatchRange

SESSION = "60 s"
"""Equal rows of one epoch whose receive times lie further apart than this are the same event sent again."""


def same_tuple(columns: Sequence[str], nullable: Sequence[str]) -> str:
    """That ``s`` and the stored ``t`` are one event, apart from instrument; equalities where no null can stand."""
    return " AND ".join(
        f"t.{name} IS NOT DISTINCT FROM s.{name}" if name in nullable else f"t.{name} = s.{name}" for name in columns
    )


def numbered_query(spec: ChannelSpec, stream: int, batches: BatchRange) -> sql.Composed:
    """The rows of ``batches`` with their ordinal in the place of the last column.

    Only rows of batches up to the row's own are counted, so a row's number is the same however batches are cut into
    ranges, and stays when a frame that was parked is loaded later. Superseded rows count nowhere.
    """
    return numbered_rows(
        spec,
        counted=sql.SQL(
            "stream_id = {stream} AND batch <= {last} AND batch NOT IN (SELECT batch FROM load_batches"
            " WHERE stream_id = {stream} AND superseded_by IS NOT NULL)"
        ).format(stream=sql.Literal(stream), last=sql.Literal(batches.last)),
        wanted=sql.SQL("n.batch >= {}").format(sql.Literal(batches.first)),
        received_from=batches.received_from,
        received_to=batches.received_to,
    )


def numbered_rows(
    spec: ChannelSpec,
    counted: sql.Composable,
    wanted: sql.Composable,
    received_from: datetime | None,
    received_to: datetime | None,
) -> sql.Composed:
    """Rows ``n`` that are ``wanted``, received in that time, with their ordinal among those that are ``counted``."""
    kinds = dict(spec.columns)

    def keyed(name: str) -> sql.Composed:
        column = sql.Identifier(name)
        if name == "time":
            return sql.SQL("coalesce(time, received_at)").format()
        return sql.SQL("trim_scale({})" if kinds[name] == "numeric" else "{}").format(column)

    plain = [sql.Identifier(name) for name, _ in spec.columns if name != "ordinal"]
    return sql.SQL(
        """
WITH near AS MATERIALIZED (
    SELECT
        {columns}, batch, row_number() OVER (ORDER BY batch, received_at, tableoid, ctid) AS place,
        ROW(epoch, {key})::text AS key
    FROM {table}
    WHERE {counted}
        AND received_at BETWEEN {received_from}::timestamptz - {session}::interval
        AND {received_to}::timestamptz + {session}::interval
),
numbered AS (
    SELECT n.place, count(*) AS ordinal
    FROM near AS n INNER JOIN near AS p ON n.key = p.key AND p.place <= n.place
        AND p.received_at BETWEEN n.received_at - {session}::interval AND n.received_at + {session}::interval
    WHERE {wanted}
    GROUP BY n.place
)
SELECT {qualified}, numbered.ordinal::smallint AS ordinal FROM near INNER JOIN numbered USING (place)
"""
    ).format(
        columns=sql.SQL(", ").join(plain),
        qualified=sql.SQL(", ").join(sql.SQL("near.{}").format(column) for column in plain),
        key=sql.SQL(", ").join(map(keyed, spec.numbered)),
        table=sql.Identifier(spec.name),
        counted=counted,
        wanted=wanted,
        received_from=sql.Literal(received_from),
        received_to=sql.Literal(received_to),
        session=sql.Literal(SESSION),
    )
