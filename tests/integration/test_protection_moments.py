"""What a verified backup protects ends where its snapshot does, whatever ingestors' clocks and transactions say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.snapshot import merged_until

from collectors.retention.datalake import ask
from collectors.sync.source import Stream

pytestmark = pytest.mark.database


INCARNATION = uuid4()


def merge(connection: psycopg.Connection[Any], alive_until: str) -> None:
    """As sync notes it: a source, how far it has merged, and its connection."""
    connection.execute("INSERT INTO sources VALUES (%s, 'ing1')", [INCARNATION])
    connection.execute("INSERT INTO watermarks VALUES (%s, 'ing1/okx', 1)", [INCARNATION])
    connection.execute(
        "INSERT INTO connections VALUES (%s, 'ing1/okx', 'ing1', 'okx', 1, '2026-11-01', %s, NULL, NULL, 1)",
        [INCARNATION, alive_until],
    )


def test_a_dump_holds_nothing_of_after_its_snapshot(datalake_dsn: str) -> None:
    with psycopg.connect(datalake_dsn, options="-c timezone=UTC") as connection:
        assert merged_until(connection) is None, "nothing is merged"
        merge(connection, "2100-01-01")  # a clock that runs ahead
        row = connection.execute("SELECT to_char(now(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF')").fetchone()
        assert (merged_until(connection),) == row
        connection.execute("UPDATE connections SET alive_until = '2026-11-20 10:00+00'")
        assert merged_until(connection) == "2026-11-20T10:00:00.000000+00"


class Slow(psycopg.Connection[Any]):
    """Whose transactions have hardly begun when something else is merged and committed."""

    other: psycopg.Connection[Any]
    merged_at: datetime

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with super().transaction(*args, **kwargs) as begun:
            merge(self.other, "2026-11-20")
            ((self.merged_at,),) = self.other.execute("SELECT clock_timestamp()").fetchall()
            yield begun


def test_what_is_seen_as_merged_was_merged_before_the_moment_told(datalake_dsn: str) -> None:
    """Otherwise a backup begun in between would be taken to hold it."""
    with (
        psycopg.connect(datalake_dsn, autocommit=True) as other,
        Slow.connect(datalake_dsn, autocommit=True) as connection,
    ):
        connection.other = other
        answer = ask(connection, INCARNATION, [Stream(1, "ing1", "okx", "okx")])
    assert answer.watermarks == {"ing1/okx": 1}
    assert answer.now >= connection.merged_at
