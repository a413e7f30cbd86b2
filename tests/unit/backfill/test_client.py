"""Asking patiently: against the simulated exchange through ccxt, with refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from collectors.backfill import client
from collectors.backfill.client import Asked, UnansweredError
from collectors.backfill.plan import Plan
from collectors.config import Endpoint
from collectors.events import Trade
from collectors.simulator import Simulator
from collectors.simulator.faults import Fault
from collectors.simulator.simulator import Config

T = datetime(2026, 11, 1, tzinfo=UTC)
TOLD = ["binance", "okx"]
"""Exchanges whose history is both read and simulated."""


def ask(exchange: str, scenario: Callable[[Simulator, Asked, Plan], Awaitable[None]], **options: Any) -> None:
    """Run a scenario against an exchange that has traded."""

    async def run() -> None:
        config = Config(exchange=exchange, symbols=["BTCUSDT"], levels=50, first_trade_id=1000, **options)
        async with Simulator(config) as simulator:
            simulator.pause()
            simulator.trade(3000)
            (native_id,) = simulator.engines
            plan = Plan(1, exchange, "BTC/USDT", native_id, T, T, "open", "")
            async with client.asking(exchange, Endpoint(rest=simulator.rest_url())) as asked:
                await scenario(simulator, asked, plan)

    asyncio.run(run())


def true_trades(simulator: Simulator) -> dict[int, Trade]:
    (native_id,) = simulator.engines
    return {
        e.trade_id: Trade(native_id, e.time * 1_000_000, str(e.trade_id), e.is_buy, e.price, e.amount)
        for e in (t.event for t in simulator.truth.symbols[native_id].trades)
    }


@pytest.mark.parametrize("exchange", TOLD)
def test_pages_are_the_true_trades_just_below_an_id_digit_for_digit(exchange: str) -> None:
    async def scenario(simulator: Simulator, asked: Asked, plan: Plan) -> None:
        true = true_trades(simulator)
        assert len(true) > 400
        page = await asked.page(plan, 1300, 100)
        assert sorted(page, key=lambda trade: int(trade.trade_id or 0)) == [true[n] for n in range(1200, 1300)]
        assert [trade.trade_id for trade in await asked.page(plan, 1003, 3)] == ["1000", "1001", "1002"]

    ask(exchange, scenario)


@pytest.mark.parametrize("exchange", TOLD)
def test_what_the_exchange_no_longer_tells_is_an_empty_page(exchange: str) -> None:
    async def scenario(simulator: Simulator, asked: Asked, plan: Plan) -> None:
        oldest = min(true_trades(simulator)) + len(true_trades(simulator)) - 50
        assert len(await asked.page(plan, oldest + 10, 100)) == 10
        assert await asked.page(plan, oldest, 100) == []

    ask(exchange, scenario, history=50)


@pytest.mark.parametrize("exchange", TOLD)
@pytest.mark.parametrize("status", [429, 503])
def test_refusals_are_waited_out_and_at_last_named(exchange: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep_not(seconds: float) -> None:
        slept.append(seconds)

    async def scenario(simulator: Simulator, asked: Asked, plan: Plan) -> None:
        monkeypatch.setattr(client, "sleep", sleep_not)
        simulator.fault(Fault("status", path="rades", status=status, count=3))
        await asyncio.sleep(0.05)  # the fault is injected by a task
        assert len(await asked.page(plan, 1100, 50)) == 50
        assert sum(seconds >= 1 for seconds in slept) >= 3, f"Retry-After of a second was not kept: {slept}"
        simulator.fault(Fault("status", path="rades", status=status))
        await asyncio.sleep(0.05)
        with pytest.raises(UnansweredError, match=f"{exchange} did not answer after 8 attempts"):
            await asked.page(plan, 1100, 50)

    ask(exchange, scenario)
