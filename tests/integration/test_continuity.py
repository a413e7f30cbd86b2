"""Continuity against coverage that is known: SQL's gaps, the command, the module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from collectors.coverage import Query, check_continuity
from collectors.errors import CryptopipError, UsageError
from tests.conftest import fresh_database

pytestmark = pytest.mark.database

T0 = datetime(2026, 11, 1, 10, 30, tzinfo=UTC)
LIFE = UUID(int=1)
ROOT = Path(__file__).resolve().parents[2]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def lake(lake_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lake_dsn, autocommit=True, client_encoding="UTF8") as connection:
        clear(connection)
        yield connection


def clear(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "TRUNCATE recording, instruments, sources, watermarks, connections, coverage, digests, trades CASCADE"
    )
    connection.execute(
        "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
        " VALUES (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')"
    )
    connection.execute("INSERT INTO sources (incarnation, ingestor) VALUES (%s, 'ing1')", [LIFE])


def record(connection: psycopg.Connection[Any], start: float, end: float | None) -> None:
    upper = at(end) if end is not None else None
    connection.execute("INSERT INTO recording VALUES (1, 'trades', tstzrange(%s, %s))", [at(start), upper])


def cover(
    connection: psycopg.Connection[Any], ingestor: str, start: float, end: float, cause: str | None = "crash"
) -> None:
    """An interval whose ids are its seconds; with ``cause`` None it is open and its connection alive up to ``end``."""
    row = connection.execute("SELECT count(*) FROM coverage").fetchone()
    assert row is not None
    number = row[0] + 1
    connection.execute(
        "INSERT INTO connections VALUES (%s, 's', %s, 'binance', %s, %s, %s, NULL, NULL, 1)",
        [LIFE, ingestor, number, at(start), at(end)],
    )
    connection.execute(
        "INSERT INTO coverage VALUES (%s, %s, 's', %s, %s, 1, 'trades', %s, %s, %s, %s, NULL, NULL, 'sequence', %s, 1)",
        [
            LIFE,
            number,
            ingestor,
            number,
            at(start),
            at(end) if cause else None,
            str(start),
            str(end) if cause else None,
            cause,
        ],
    )


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda t: (t[0], t[0] + t[1])), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans, spans, st.tuples(st.integers(0, 25), st.integers(26, 60)))
def test_gaps_are_what_was_meant_and_not_covered_second_by_second(
    lake: psycopg.Connection[Any], meant: list[tuple[int, int]], covered: list[tuple[int, int]], window: tuple[int, int]
) -> None:
    clear(lake)
    for start, end in meant:
        record(lake, start, end)
    for n, (start, end) in enumerate(covered):
        cover(lake, f"ing{n % 2 + 1}", start, end, None if n % 3 == 0 else "disconnect")
    row = lake.execute("SELECT gaps(1, 'trades', tstzrange(%s, %s))", [at(window[0]), at(window[1])]).fetchone()
    assert row is not None
    seconds = [s + 0.5 for s in range(60)]

    def inside(ranges: list[tuple[int, int]], second: float) -> bool:
        return any(start < second < end for start, end in ranges)

    expected = {s for s in seconds if window[0] < s < window[1] and inside(meant, s) and not inside(covered, s)}
    assert {s for s in seconds if any(gap.lower < at(s) < gap.upper for gap in row[0])} == expected


def test_a_gap_tells_its_length_ids_and_causes(lake: psycopg.Connection[Any]) -> None:
    record(lake, 0, None)
    cover(lake, "ing1", 0, 100, "crash")
    cover(lake, "ing2", 0, 80, "disconnect")
    cover(lake, "ing1", 112.5, 300, "shutdown")
    lake.execute("INSERT INTO digests VALUES (1, 'trades', %s, 5, 1)", [T0.replace(minute=0)])
    lake.execute(
        "INSERT INTO trades SELECT %s + n * interval '1 s', %s, 1, 1, true, n::text, 1, 1, NULL, NULL, 'ing1'"
        " FROM generate_series(1, 50, 10) AS n",
        [T0, T0],
    )
    (answer,) = check_continuity(lake, Query(until=at(300)))
    (gap,) = answer.gaps
    assert (gap.start, gap.end, gap.seconds) == (at(100), at(112.5), 12.5)
    assert (gap.last_id_before, gap.first_id_after) == ("100", "112.5")
    assert gap.ended_by == {"ing1": "crash", "ing2": "disconnect"}
    assert (answer.recorded_seconds, answer.covered_seconds, answer.rows) == (300.0, 287.5, 5)
    assert answer.ratio == pytest.approx(287.5 / 300)
    assert check_continuity(lake, Query(until=at(300), min_gap=13))[0].gaps == []


def test_what_nobody_ever_recorded_is_one_gap(lake: psycopg.Connection[Any]) -> None:
    record(lake, 0, None)
    (answer,) = check_continuity(lake, Query(until=at(60)))
    assert [(gap.seconds, gap.ended_by) for gap in answer.gaps] == [(60.0, {})]
    assert answer.ratio == 0


def test_what_is_on_its_way_is_no_gap_and_what_stays_away_is(lake: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    record(lake, 0, None)
    cover(lake, "ing1", 0, (now - T0).total_seconds() - 30, None)
    assert check_continuity(lake, Query(settle=600))[0].gaps == []
    (gap,) = check_continuity(lake, Query(settle=5))[0].gaps
    assert gap.ended_by == {"ing1": None}


def test_wrong_questions_are_answered_with_what_to_do(lake: psycopg.Connection[Any], server_dsn: str) -> None:
    for query, message in [
        (Query(since=at(5), until=at(1)), "is not before until"),
        (Query(exchange="kraken"), "unknown exchange 'kraken': the datalake has instruments of binance"),
        (Query(symbol="ETH/*"), "no instrument's symbol is like"),
        (Query(channel="ticks"), "unknown channel 'ticks'"),
    ]:
        with pytest.raises(UsageError, match=message):
            check_continuity(lake, query)
    with psycopg.connect(server_dsn, dbname="postgres") as other, pytest.raises(CryptopipError, match="not migrated"):
        check_continuity(other, Query())


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The command as installed on a host."""
    script = tmp_path / "cryptopip"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom collectors.cli import main\nmain()\n"
    )
    script.chmod(0o755)
    return script


def test_the_command_writes_the_page_beside_its_answer(
    lake: psycopg.Connection[Any], lake_dsn: str, command: Path, tmp_path: Path
) -> None:
    record(lake, 0, None)
    cover(lake, "ing1", 0, 1350)
    page = tmp_path / "report.html"
    argv = [str(command), "continuity", f"--dsn={lake_dsn}", f"--until={at(1800).isoformat()}", f"--report={page}"]
    done = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["gap_seconds"]) == (1, 450.0)
    assert '<th scope="row">binance BTC/USDT</th><td class="part">75</td>' in page.read_text()
    assert "<td>ing1: crash</td>" in page.read_text()


def run_module(command: Path, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "adhoc", "localhost", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            *("-m", "cryptopip.marketdata.continuity_check", "-a", json.dumps({"command": str(command)} | arguments)),
            *(["--check"] if check else []),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"][0]["hosts"][
        "localhost"
    ]
    return answer


def test_the_module_lists_gaps_changes_nothing_and_fails_only_when_asked(
    lake: psycopg.Connection[Any], lake_dsn: str, command: Path
) -> None:
    record(lake, 0, None)
    cover(lake, "ing1", 0, 100)
    reader = make_conninfo(lake_dsn, options="-c role=cryptopip_reader")
    asked = {"dsn": reader, "until": at(130).isoformat(), "symbol": "BTC/*"}
    answer = run_module(command, asked)
    assert (answer["changed"], answer["gap_count"], answer["gap_seconds"]) == (False, 1, 30.0)
    assert answer["channels"][0]["gaps"][0]["ended_by"] == {"ing1": "crash"}
    assert not run_module(command, asked | {"fail_on": ["silent"], "rates": True}).get("failed")
    failed = run_module(command, asked | {"fail_on": ["silent", "not_listening"]})
    assert failed["failed"]
    assert failed["msg"] == "found not_listening: see channels"
    wrong = run_module(command, asked | {"since": "2027-01-01"})
    assert wrong["failed"]
    assert "is not before until" in wrong["msg"]


def test_the_modules_report_changes_when_the_page_does_and_never_in_check_mode(
    lake: psycopg.Connection[Any], lake_dsn: str, command: Path, tmp_path: Path
) -> None:
    record(lake, 0, None)
    cover(lake, "ing1", 0, 100)
    page = tmp_path / "page.html"
    asked = {"dsn": lake_dsn, "until": at(130).isoformat(), "report": str(page)}
    assert run_module(command, asked, check=True)["changed"]
    assert not page.exists()
    assert run_module(command, asked)["changed"]
    text = page.read_text()
    assert "ing1: crash" in text
    assert not run_module(command, asked)["changed"]
    assert not run_module(command, asked, check=True)["changed"]
    cover(lake, "ing1", 105, 130)
    assert run_module(command, asked, check=True)["changed"]
    assert page.read_text() == text
    lost = run_module(command, asked | {"report": str(tmp_path / "no" / "page.html")})
    assert lost["failed"]
    assert "is in no folder there is" in lost["msg"]
