from __future__ import annotations

from pathlib import Path

from collectors.config import Config, Endpoint
from collectors.simulator import Config as Simulated
from collectors.simulator import Simulator
from collectors.universe import load_universe
from collectors.universe_online import ask_exchanges

UNIVERSE = Path(__file__).resolve().parents[2] / "files" / "universe.yml"


async def test_a_symbol_the_exchange_does_not_list_is_found_and_a_right_universe_has_no_problem(tmp_path: Path) -> None:
    wrong = tmp_path / "universe.yml"
    wrong.write_text(UNIVERSE.read_text().replace("SOL", "SLO"))
    async with Simulator(Simulated(symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"], rate=1, levels=20)) as simulator:
        config = Config(exchanges={"binance": Endpoint(rest=simulator.rest_url("a"))})
        assert await ask_exchanges(load_universe(UNIVERSE), config) == []
        (problem,) = await ask_exchanges(load_universe(wrong), config)
    assert problem.startswith("id 3 (binance SLO/USDT): the exchange lists no such symbol: did you mean")
