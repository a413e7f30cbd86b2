"""What every reader of a datalake asks first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg


def missing_relations(connection: psycopg.Connection[Any], names: Sequence[str]) -> list[str]:
    """Those of the tables and views ``names`` that the database has not, in their order."""
    query = "SELECT relname FROM pg_class WHERE relname = ANY (%s)"
    found = {row[0] for row in connection.execute(query, [list(names)])}
    return [name for name in names if name not in found]


def is_dropped(connection: psycopg.Connection[Any], channel: str, since: datetime, until: datetime) -> bool:
    """Whether events of a channel that happened in that time, both included, are no longer in the datalake."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM dropped_chunks WHERE channel = %s AND during && tstzrange(%s, %s, '[]'))",
        [channel, since, until],
    ).fetchone()
    return row == (True,)
