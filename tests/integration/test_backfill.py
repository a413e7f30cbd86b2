"""Gaps of trades filled from the exchange's own history: through the whole chain, against the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from collectors.coverage import Query, check_continuity
from collectors.coverage.report import render
from collectors.digests import Source, Summary, Window, compare
from collectors.simulator import Truth
from tests.conftest import ROOT, fresh_database
from tests.integration.harness.fleet import Fleet
from tests.integration.harness.process import Process, until
from tests.integration.harness.rows import held_rows, true_rows

pytestmark = pytest.mark.database
SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def gap(tmp_path: Path, server_dsn: str, datalake_dsn: str, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A chain whose both ingestors heard nothing for a moment, recorded, loaded and merged."""
    options: dict[str, Any] = request.param
    with ExitStack() as stack:
        database = contextmanager(fresh_database)
        dsns = [stack.enter_context(database(server_dsn, "ingestor")) for _ in range(2)]
        fleet = Fleet(tmp_path, dsns, datalake_dsn, symbols=SYMBOLS, **options)
        stack.callback(fleet.close)
        fleet.record()
        time.sleep(1)  # time is what the scenario is made of
        fleet.exchange.fault("refuse", "*", seconds=3)
        until(lambda: not any(fleet.exchange.streams(one.name) for one in fleet.ingestors), "the outage")
        for ingestor in fleet.ingestors:
            ingestor.wait_subscribed(SYMBOLS)
        time.sleep(1.5)
        fleet.finish_recording()
        fleet.load_and_sync()
        yield fleet


def backfill(fleet: Fleet, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit code and answer."""
    command = [sys.executable, "-m", "collectors", "backfill", "--config", str(fleet.config), "--json", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=False)
    assert ran.stdout, ran.stderr.decode()
    return ran.returncode, json.loads(ran.stdout)


def missing(fleet: Fleet) -> dict[str, int]:
    """By symbol: trades since recording was meant, up to the last one that somebody received, that the lake lacks."""
    truth, found = Truth.read(fleet.exchange.truth_folder), {}
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            (since,) = connection.execute(
                "SELECT (extract(epoch FROM lower(during)) * 1000000)::bigint FROM recording"
                " WHERE instrument_id = %s AND channel = 'trades'",
                [instrument],
            ).fetchone() or (0,)
            rows = sorted(held_rows(connection, instrument, "trades", fleet.wire), key=lambda row: int(row[0]))
            true = [each.row for each in true_rows(truth.symbols[symbol], "trades", fleet.wire) if each.row[1] >= since]
            wanted = [row for row in true if int(row[0]) <= int(rows[-1][0])]
            assert len({row[0] for row in rows}) == len(rows), f"{symbol}: trades twice"
            assert set(rows) <= set(true), f"{symbol}: trades that never happened"
            found[symbol] = len(wanted) - len(rows)
    return found


def gaps(fleet: Fleet, until_: Any = None) -> list[Any]:
    """The gaps of trades that a check lists, but that since the recorders have ended."""
    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        answers = check_continuity(connection, Query(channel="trades"))
        listed = [each for answer in answers for each in answer.gaps]
        assert "Gaps" in render(answers)
    return [each for each in listed if each.kind != "stale" and each.first_id_after is not None]


def assert_derived(fleet: Fleet) -> None:
    """Digests and bars are those of the trades, backfilled ones included."""
    fleet.run("derive", "--config", str(fleet.config))
    compared = Summary()
    kept, computed = (Source(text).digests(Window()) for text in (fleet.datalake_dsn, f"rows:{fleet.datalake_dsn}"))
    assert list(compare(kept, computed, compared)) == []
    with psycopg.connect(fleet.datalake_dsn) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM trades), (SELECT sum(trades) FROM ohlcv_1d),"
            " (SELECT sum(trades) FROM ohlcv_1s)"
        ).fetchone()
    assert counts is not None
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("gap", [{"exchange": "binance"}], ids=["binance"], indirect=True)
def test_what_nobody_heard_is_told_by_the_exchange_and_the_history_is_the_truth(gap: Fleet) -> None:
    before = missing(gap)
    assert all(before.values()), f"nobody missed anything, so nothing is proven: {before}"
    assert not any(each.is_mended for each in gaps(gap))
    code, listed = backfill(gap, "--check")
    assert (code, listed["changed"], listed["rows"]) == (1, True, 0)
    assert missing(gap) == before, "a check changed something"

    for status in (429, 503):
        gap.exchange.fault("status", "*", path="rades", status=status, count=2)
    code, filled = backfill(gap)
    assert sum(gap.exchange.faults(one.name).get("status", 0) for one in gap.ingestors) == 4, "nothing was refused"
    assert (filled["rows"], filled["errors"]) == (sum(before.values()), {})
    assert missing(gap) == dict.fromkeys(before, 0)
    assert all(each.is_mended for each in gaps(gap))
    assert (code, {each["state"] for each in filled["gaps"]}) == (0, {"mended"})
    assert gap.count(gap.datalake_dsn, "trades WHERE ingestor = 'backfill:rest'") == sum(before.values())
    assert gap.count(gap.datalake_dsn, "sync_conflicts") == 0
    assert_derived(gap)

    code, again = backfill(gap)
    assert (again["changed"], again["rows"]) == (False, 0)
    assert backfill(gap, "--check")[1]["changed"] is False


@pytest.mark.parametrize("gap", [{"exchange": "okx"}], ids=["okx"], indirect=True)
def test_a_backfill_killed_midway_goes_on_from_there(gap: Fleet) -> None:
    before = missing(gap)
    process = gap.keep(Process(gap.folder / "backfill.log", "backfill", "--config", str(gap.config)))
    until(lambda: gap.count(gap.datalake_dsn, "trades WHERE ingestor = 'backfill:rest'"), "the first page", pause=0.01)
    process.kill()
    left = missing(gap)
    assert 0 < sum(left.values()) < sum(before.values()), f"not killed midway: {left} of {before}"
    _, filled = backfill(gap)
    assert filled["rows"] == sum(left.values()), "what had been done was done again"
    assert missing(gap) == dict.fromkeys(before, 0)
    assert all(each.is_mended for each in gaps(gap))
    assert_derived(gap)


@pytest.mark.parametrize("gap", [{"exchange": "binance", "history": 150}], ids=["binance"], indirect=True)
def test_a_gap_older_than_what_the_exchange_tells_stays_listed(gap: Fleet) -> None:
    before = missing(gap)
    _, filled = backfill(gap)
    after = missing(gap)
    assert all(after.values()), f"the exchange told everything, so nothing is proven: {after}"
    assert filled["rows"] == sum(before.values()) - sum(after.values())
    assert "out_of_reach" in {each["state"] for each in filled["gaps"]}
    listed = gaps(gap)
    assert listed
    assert not any(each.is_mended for each in listed if each.backfill == "out_of_reach")
    assert any("the exchange tells no trade before id" in each.mended for each in listed)
    _, again = backfill(gap)
    assert (again["changed"], again["rows"]) == (False, 0)
    assert_derived(gap)


def test_a_check_asks_nobody_and_says_why_a_gap_stays(datalake_dsn: str, tmp_path: Path) -> None:
    """At the exchange's address nobody listens: who asked would fail."""
    with psycopg.connect(datalake_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at) VALUES"
            " (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01'),"
            " (2, 'mexc', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01')"
        )
        connection.execute(
            "INSERT INTO recording SELECT id, 'trades', tstzrange('2026-11-01', '2026-11-02') FROM instruments"
        )
        connection.execute(
            "INSERT INTO trades (time, received_at, epoch, instrument_id, is_buy, trade_id, price, amount, ingestor)"
            " SELECT '2026-11-02', '2026-11-02', 1, id, true, '500', 1, 1, 'ing1' FROM instruments"
        )
    config = tmp_path / "cryptopip.yml"
    config.write_text(
        json.dumps(
            {
                "sync": {"datalake": datalake_dsn, "sources": []},
                "exchanges": {"binance": {"rest": "http://127.0.0.1:1", "ws": None}},
            }
        )
    )
    command = [sys.executable, "-m", "collectors", "backfill", "--config", str(config), "--json"]
    check = json.loads(subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, check=False).stdout)
    assert [(each["exchange"], each["state"]) for each in check["gaps"]] == [("binance", "open"), ("mexc", None)]
    assert "carry no id" in check["gaps"][1]["detail"]
