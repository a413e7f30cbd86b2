from __future__ import annotations

from pathlib import Path

from collectors.config import Endpoint
from collectors.simulator import Config as Simulated
from collectors.simulator import Simulator
from collectors.universe import load_universe
from collectors.universe_online import ask_exchanges

UNIVERSE = Path(__file__).resolve().parents[2] / "files" / "universe.yml"


async def test_a_symbol_the_exchange_does_not_list_is_found_and_a_right_universe_has_no_problem(tmp_path: Path) -> None:
    wrong = tmp_path / "universe.yml"
    wrong.write_text(UNIVERSE.read_text().replace("SOL", "SLO"))
    async with Simulator(Simulated(symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"], rate=1, levels=20)) as simulator:
        endpoints = {"binance": Endpoint(rest=simulator.rest_url("a"))}
        assert await ask_exchanges(load_universe(UNIVERSE), endpoints) == ([], [])
        (problem,), silent = await ask_exchanges(load_universe(wrong), endpoints)
    assert problem.startswith("id 3 (binance SLO/USDT): the exchange lists no such symbol: did you mean")
    assert silent == []


async def test_a_silent_exchange_is_named_and_keeps_no_other_from_answering(tmp_path: Path) -> None:
    wrong = tmp_path / "universe.yml"
    coin = UNIVERSE.read_text().replace("SOL", "SLO")
    wrong.write_text(coin.replace("exchange: binance\n    symbol: BTC", "exchange: kraken\n    symbol: BTC"))
    async with Simulator(Simulated(symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"], rate=1, levels=20)) as simulator:
        endpoints = {
            "binance": Endpoint(rest=simulator.rest_url("a")),
            "kraken": Endpoint(rest="http://127.0.0.1:1"),
            "okx": Endpoint(),  # of which there is no instrument: it is not asked
        }
        (problem,), (silent,) = await ask_exchanges(load_universe(wrong), endpoints)
    assert problem.startswith("id 3 (binance SLO/USDT): the exchange lists no such symbol")
    assert silent.startswith("kraken at http://127.0.0.1:1 did not give its market list (")
