"""``cryptopip venues``: every exchange is shown, and nothing is claimed that is not so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from collectors.cli import app
from collectors.decode import EXCHANGES, decoder
from collectors.simulator.wire import SIMULATED
from collectors.venues_cli import REPLAYED

TESTS = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["venues", *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_person_reads_what_is_declared() -> None:
    assert run("binance").splitlines() == [
        f"binance: decoder {decoder('binance').version}, tested against contract, capture, chain",
        "  https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams",
        "  CHANNEL      STREAM                IDENTITY  PROOF        SNAPSHOT  DEPTH",
        "  trades       <symbol>@trade        id        consecutive  -         -",
        "  quotes       <symbol>@bookTicker   id        none         -         -",
        "  book_events  <symbol>@depth@100ms  chain     consecutive  rest      5000",
    ]


def test_a_program_reads_the_same() -> None:
    (found,) = json.loads(run("hitbtc", "--json"))
    assert found["exchange"] == "hitbtc"
    assert found["decoder"] == decoder("hitbtc").version
    assert found["documentation"].startswith("https://")
    assert found["channels"]["book_events"] == {
        "stream": "orderbook/full",
        "identity": "chain",
        "proof": "consecutive",
        "snapshot": "socket",
        "depth": None,
    }


def test_without_a_name_every_exchange_is_shown() -> None:
    assert [one["exchange"] for one in json.loads(run("--json"))] == list(EXCHANGES)
    assert re.findall(r"^(\w+): ", run(), re.MULTILINE) == list(EXCHANGES)


def test_an_unknown_exchange_is_answered_with_those_there_are() -> None:
    result = CliRunner().invoke(app, ["venues", "nowhere"])
    assert result.exit_code == 2
    assert "'nowhere'; expected one of: " in result.stderr


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_chain_is_claimed_where_a_simulator_goes_through_it(exchange: str) -> None:
    (found,) = json.loads(run(exchange, "--json"))
    assert (TESTS / "unit" / "decode" / f"test_{exchange}.py").is_file()
    assert ("chain" in found["tested_against"]) is (exchange in SIMULATED)


def test_recorded_traffic_is_claimed_where_a_test_replays_it() -> None:
    replays = {one: [TESTS / "unit" / "decode" / f"test_{one}.py"] for one in EXCHANGES}
    replays["binance"].append(TESTS / "integration" / "test_replay.py")
    found = {one for one, paths in replays.items() if any("mark.captures" in path.read_text() for path in paths)}
    assert sorted(REPLAYED) == sorted(found), "write this set into collectors/venues_cli.py"
