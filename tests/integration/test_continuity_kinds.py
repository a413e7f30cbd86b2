"""Kinds of trouble, each made on purpose and told apart; and a coverage table that somebody edited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from collectors.coverage import Continuity, Query, check_continuity
from collectors.coverage.model import EmptyHour
from tests.conftest import fresh_database

pytestmark = pytest.mark.database
Connection = psycopg.Connection[Any]

ROOT = Path(__file__).resolve().parents[2]
T0 = datetime(2026, 11, 1, 10, tzinfo=UTC)
LIFE = UUID(int=1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def lake(lake_dsn: str) -> Iterator[Connection]:
    """Recording of trades, quotes and the book of BTC was meant from T0 on."""
    with psycopg.connect(lake_dsn, autocommit=True, options="-c timezone=Asia/Kolkata") as connection:
        connection.execute(
            "TRUNCATE recording, instruments, sources, connections, coverage, digests, trades, quotes CASCADE"
        )
        connection.execute(
            "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
            " VALUES (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')"
        )
        connection.execute("INSERT INTO sources (incarnation, ingestor) VALUES (%s, 'ing1')", [LIFE])
        yield connection


def meant(lake: Connection, channel: str, start: float = 0) -> None:
    lake.execute("INSERT INTO recording VALUES (1, %s, tstzrange(%s, NULL))", [channel, at(start)])


def cover(
    lake: Connection, start: float, end: float, cause: str | None, *, channel: str = "trades", ids: Any = (None, None),
    epoch: int = 1, proof: str = "sequence",
) -> None:  # fmt: skip
    """An interval of ing1, from ``start`` to ``end``; open, and heard of up to ``end``, where ``cause`` is None."""
    lake.execute(
        "INSERT INTO connections VALUES (%s, 's', 'ing1', 'binance', %s, %s, %s, NULL, NULL, 1)"
        " ON CONFLICT (incarnation, stream, epoch) DO UPDATE SET alive_until = excluded.alive_until",
        [LIFE, epoch, at(start), at(end)],
    )
    lake.execute(
        "INSERT INTO coverage SELECT %s, 1 + count(*), 's', 'ing1', %s, 1, %s, %s, %s, %s, %s, NULL, NULL, %s, %s, 1"
        " FROM coverage",
        [LIFE, epoch, channel, at(start), at(end) if cause else None, *ids, proof, cause],
    )


def trades(lake: Connection, ids: range, start: float, ingestor: str = "ing1", lag: float = 0.1) -> None:
    """One each 10 ms."""
    lake.execute(
        "INSERT INTO trades SELECT %(at)s + n * INTERVAL '10 ms', %(at)s + n * INTERVAL '10 ms' + %(lag)s, 1, 1, true,"
        " (%(first)s + n)::text, 1, 1, NULL, NULL, %(ingestor)s FROM generate_series(0, %(last)s) AS n",
        {
            "at": at(start), "first": ids.start, "last": len(ids) - 1, "ingestor": ingestor,
            "lag": timedelta(seconds=lag),
        },
    )  # fmt: skip


def only(lake: Connection, **query: Any) -> Continuity:
    (answer,) = check_continuity(lake, Query(**query))
    return answer


def test_gaps_are_of_the_kind_that_opened_them(lake: Connection) -> None:
    for channel in ("trades", "book_events"):
        meant(lake, channel)
        cover(lake, 0, 100, "crash", channel=channel)
        cover(lake, 110, 200, "sequence", channel=channel, epoch=2)
        cover(lake, 230, 300, "shutdown", channel=channel, epoch=3)
    book, of_trades = check_continuity(lake, Query(until=at(300)))
    assert [(gap.kind, gap.seconds) for gap in of_trades.gaps] == [("not_listening", 10), ("ids_missing", 30)]
    assert [(gap.kind, gap.seconds) for gap in book.gaps] == [("not_listening", 10), ("sequence_broken", 30)]


def test_a_connection_nothing_is_heard_of_is_stale_and_one_that_ended_is_not(lake: Connection) -> None:
    meant(lake, "trades")
    cover(lake, 0, 100, None)
    assert [gap.kind for gap in only(lake).gaps] == ["stale"]
    assert [gap.kind for gap in only(lake, until=at(200)).gaps] == ["not_listening"], "what is so now was not asked"
    lake.execute("UPDATE coverage SET ended_at = %s, ended_by = 'crash'", [at(100)])
    assert [gap.kind for gap in only(lake).gaps] == ["not_listening"]


@pytest.mark.parametrize(
    ("kept", "missing", "mended"),
    [(range(0), 50, "no, 50 of 50 ids"), (range(101, 131), 20, "no, 20 of 50"), (range(101, 151), 0, "yes, 50 ids")],
)
def test_ids_tell_whether_a_gap_is_mended(lake: Connection, kept: range, missing: int, mended: str) -> None:
    meant(lake, "trades")
    cover(lake, 0, 100, "crash", ids=("1", "100"))
    cover(lake, 110, 200, "shutdown", ids=("151", "200"), epoch=2)
    if kept:
        trades(lake, kept, 104, "backfill")
    (gap,) = only(lake, until=at(200)).gaps
    assert (gap.ids_between, gap.missing_ids, gap.is_mended) == (50, missing, not missing)
    assert gap.mended.startswith(mended)
    assert only(lake, until=at(200)).found() == ([] if not missing else ["not_listening"])


def test_a_gap_in_which_the_exchange_numbered_nothing_is_mended_and_one_whose_ids_fall_is_not_told(
    lake: Connection,
) -> None:
    meant(lake, "trades")
    cover(lake, 0, 100, "crash", ids=("1", "100"))
    cover(lake, 110, 200, "crash", ids=("101", "200"), epoch=2)
    cover(lake, 210, 300, "crash", ids=("7", "9"), epoch=3)
    cover(lake, 310, 400, "shutdown", ids=("uuid", "uuid"), epoch=4)
    assert [gap.mended for gap in only(lake, until=at(400)).gaps] == [
        "nothing was missed", "cannot be told", "cannot be told",
    ]  # fmt: skip


def test_a_jump_that_took_no_time_is_found_unless_another_ingestor_had_the_trades(lake: Connection) -> None:
    meant(lake, "trades")
    cover(lake, 0, 100, "sequence", ids=("1", "100"))
    cover(lake, 100, 200, "shutdown", ids=("104", "200"))
    answer = only(lake, until=at(200))
    assert (answer.gaps, [each.kind for each in answer.troubles]) == ([], ["ids_missing"])
    assert answer.troubles[0].detail == "3 of the 3 trades 101 to 103 did not reach ing1 or any other"
    trades(lake, range(101, 104), 100, "ing2")
    assert only(lake, until=at(200)).troubles == []


def digests(lake: Connection, counts: dict[int, int]) -> None:
    lake.cursor().executemany(
        "INSERT INTO digests VALUES (1, 'trades', %s, %s, 0)", [(at(3600 * h), n) for h, n in counts.items()]
    )


def test_silence_is_measured_against_the_usual_rate_and_only_where_somebody_listened(lake: Connection) -> None:
    meant(lake, "trades", -48 * 3600)
    cover(lake, -48 * 3600, 7200, "crash")
    cover(lake, 3 * 3600, 5 * 3600, "shutdown", epoch=2)
    digests(lake, {hour: 1000 + hour for hour in range(-48, 0)} | {0: 30, 1: 400, 2: 0, 3: 0, 4: 900})
    answer = only(lake, since=at(0), until=at(5 * 3600), rates=True)
    # Hour 1 has few rows, but not that few; in hour 2 nobody listened.
    assert [(each.kind, each.start, each.detail) for each in answer.troubles] == [
        ("silent", at(0), "30 rows in an hour, where 976 are usual"),
        ("silent", at(3 * 3600), "0 rows in an hour, where 974 are usual"),
    ]
    assert only(lake, since=at(0), until=at(5 * 3600)).troubles == []


def test_hours_without_a_row_are_listed_with_what_is_covered_of_them(lake: Connection) -> None:
    meant(lake, "trades")
    cover(lake, 0, 5400, "crash")
    digests(lake, {0: 5, 1: 0, 3: 7})
    answer = only(lake, since=at(0), until=at(4.5 * 3600), empty_hours=True)
    assert answer.empty_hours == [EmptyHour(at(3600), 1800), EmptyHour(at(7200), 0)]


def test_crossed_and_locked_quotes_are_counted(lake: Connection) -> None:
    meant(lake, "quotes")
    cover(lake, 0, 3600, "shutdown", channel="quotes")
    for n, (bid, ask) in enumerate([(1, 2), (3, 2), (2, 2), (2, 2), (None, 2), (1, 2)]):
        lake.execute(
            "INSERT INTO quotes VALUES (%(t)s, %(t)s, 1, %(n)s, 1, %(bid)s, 1, %(ask)s, 1, 'ing1')",
            {"t": at(10 * n), "n": n, "bid": bid, "ask": ask},
        )
    (trouble,) = only(lake, until=at(3600), read_rows=True).troubles
    assert (trouble.kind, trouble.start, trouble.end) == ("crossed", at(10), at(30))
    assert trouble.detail == "1 crossed and 2 locked quotes"


def test_clocks_that_cannot_both_be_right_are_told_and_lag_is_measured(lake: Connection) -> None:
    meant(lake, "trades")
    cover(lake, 0, 10_800, "shutdown")
    trades(lake, range(100), 0, lag=0.25)
    answer = only(lake, until=at(10_800), read_rows=True)
    assert answer.troubles == []
    assert answer.lag is not None
    assert (answer.lag.p50, answer.lag.max) == (0.25, 0.25)
    trades(lake, range(200, 300), 3600, lag=-1.25)
    trades(lake, range(300, 400), 7200, lag=45)
    trades(lake, range(400, 500), 7200, "backfill", lag=90_000)
    details = [(each.start, each.detail) for each in only(lake, until=at(10_800), read_rows=True).troubles]
    assert details == [
        (at(3600), "an event reached ing1 1.250 s before the exchange says it happened"),
        (at(7200), "no event reached ing1 in less than 45.000 s"),
    ]


def test_coverage_cannot_end_before_it_starts(lake: Connection) -> None:
    cover(lake, 0, 100, "crash")
    with pytest.raises(psycopg.errors.CheckViolation):
        lake.execute("UPDATE coverage SET ended_at = %s", [at(-50)])


def test_a_gap_names_who_ended_before_it_however_long_ago(lake: Connection) -> None:
    meant(lake, "trades", -90 * 86400)
    cover(lake, -90 * 86400, -80 * 86400, "disk", ids=("1", "9"))
    (gap,) = only(lake, since=at(0), until=at(60)).gaps
    assert (gap.ended_by, gap.last_id_before) == ({"ing1": "disk"}, "9")


def test_coverage_that_overlaps_or_reaches_ahead_is_taken_for_what_it_can_mean(
    lake: Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    meant(lake, "trades")
    cover(lake, 0, 100, "crash")
    cover(lake, 50, 150, "crash")
    cover(lake, 200, 10 * 365 * 86400, "crash", epoch=2)
    answer = only(lake, until=at(300))
    assert (answer.covered_seconds, [gap.seconds for gap in answer.gaps]) == (250, [50])
    said = "".join(capfd.readouterr())
    assert "overlap others of their own connection" in said
    assert "reach into the future" in said


def command(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    reader = make_conninfo(dsn, options="-c role=cryptopip_reader")
    return subprocess.run(
        [sys.executable, "-m", "collectors", "continuity", f"--dsn={reader}", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"COLUMNS": "300", "PATH": "/usr/bin"},
    )  # fmt: skip


def test_the_command_ends_with_one_for_the_kinds_asked_for_and_prints_them(lake: Connection, lake_dsn: str) -> None:
    meant(lake, "trades")
    cover(lake, 0, 100, "crash", ids=("1", "100"))
    cover(lake, 110, 7200, "shutdown", ids=("151", "200"), epoch=2)
    until = f"--until={at(7200).isoformat()}"
    done = command(lake_dsn, until, "--json", "--empty-hours")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["found"], answer["empty_hour_count"]) == (1, ["not_listening"], 2)
    assert command(lake_dsn, until, "--fail-on=silent,crossed").returncode == 0
    wrong = command(lake_dsn, until, "--fail-on=silence")
    assert (wrong.returncode, "unknown kind 'silence': expected one of not_listening" in wrong.stderr) == (2, True)
    shown = command(lake_dsn, until, "--empty-hours", "--rates", "--read-rows").stdout
    assert "no, 50 of 50 ids missing" in shown
    assert "Hours without a row" in shown
    trades(lake, range(101, 151), 104, "backfill")
    assert command(lake_dsn, until).returncode == 0, "a mended gap is listed and no reason to fail"
