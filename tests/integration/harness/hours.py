"""Seconds of trading laid out over hours, so that what goes by the hour is seen at work in a short run."""

from __future__ import annotations

import psycopg

from collectors.sync.identities import specs

# Two seconds become those around a full hour, the next two those around the next: order and lags within them stay.
_IN_HOURS = """
CREATE FUNCTION pg_temp.in_hours(t timestamptz) RETURNS timestamptz LANGUAGE sql AS $$
SELECT timestamptz '2024-03-01 21:00+00' - interval '1 s' + k * interval '1 h' + (t - start - k * interval '2 s')
FROM (SELECT start, floor(extract(epoch FROM t - start) / 2)::integer AS k FROM pg_temp.start) AS s
$$
"""


def put_into_hours(dsn: str, exchange: str, since_ns: int) -> None:
    """Move the book events of a datalake, their coverage and digests: from ``since_ns`` on an hour each two seconds."""
    (spec,) = (spec for spec in specs(exchange) if spec.name == "book_events")
    with psycopg.connect(dsn, client_encoding="UTF8") as lake:
        lake.execute(
            "CREATE TEMP TABLE start AS SELECT to_timestamp(%s::numeric / 1000000) AS start", [since_ns // 1000]
        )
        lake.execute(_IN_HOURS)
        lake.execute("CREATE TEMP TABLE moved AS SELECT * FROM book_events")
        lake.execute(
            "UPDATE moved SET time = pg_temp.in_hours(time), received_at = pg_temp.in_hours(received_at);"
            "TRUNCATE book_events; INSERT INTO book_events SELECT * FROM moved;"
            "UPDATE coverage SET started_at = pg_temp.in_hours(started_at), ended_at = pg_temp.in_hours(ended_at);"
            "UPDATE connections SET opened_at = pg_temp.in_hours(opened_at),"
            " alive_until = pg_temp.in_hours(alive_until), closed_at = pg_temp.in_hours(closed_at)"
        )
        lake.execute("DELETE FROM digests WHERE channel = 'book_events'; TRUNCATE book_hours")
        lake.execute(
            "INSERT INTO digests SELECT t.instrument_id, 'book_events', time_bucket('1 hour', t.time), count(*),"
            f" sum(event_hash({spec.text})) FROM book_events AS t GROUP BY 1, 3".encode()
        )


def keep_first_snapshots(dsn: str) -> None:
    """Take the exchange's snapshots out of the history but for each instrument's first."""
    with psycopg.connect(dsn, client_encoding="UTF8") as lake:
        lake.execute(
            "WITH first AS"
            " (SELECT instrument_id, min(last_id) AS last_id FROM book_events WHERE is_snapshot GROUP BY 1),"
            " gone AS (DELETE FROM book_events AS b USING first AS f WHERE b.is_snapshot"
            " AND b.instrument_id = f.instrument_id AND b.last_id > f.last_id"
            " RETURNING b.instrument_id, time_bucket('1 hour', b.time) AS hour)"
            " UPDATE digests AS d SET rows = d.rows - g.rows"
            " FROM (SELECT instrument_id, hour, count(*) AS rows FROM gone GROUP BY 1, 2) AS g"
            " WHERE d.instrument_id = g.instrument_id AND d.channel = 'book_events' AND d.hour = g.hour"
        )
