"""One exchange's REST history, asked at the pace of its limits; what fails for a while is asked again."""

from __future__ import annotations

import time
from asyncio import sleep
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import ccxt
import structlog

from collectors.backfill.histories import HISTORIES, HistoryError
from collectors.backfill.plan import Plan
from collectors.config import Endpoint
from collectors.errors import CryptopipError
from collectors.events import Trade
from collectors.record.dial import dialler
from collectors.record.pace import Backoff, Budget
from collectors.record.venues import venue

ATTEMPTS: Final = 8
"""With the pauses between them some three minutes; the next run goes on from where this one gave up."""
MOST_PATIENCE_S: Final = 300.0
"""An exchange that wants to be left alone for longer is left to the next run."""


class UnansweredError(CryptopipError):
    """The exchange does not answer, or refuses; nothing is wrong with what was filled before."""


class Asked:
    """An exchange's history; ``page`` asks for the trades just below an id."""

    def __init__(self, exchange: str, ccxt_client: Any) -> None:
        self._history = HISTORIES[exchange]
        self._client = ccxt_client
        self._exchange = exchange
        self._backoff = Backoff(first=0.5)
        self._budget = Budget(burst=2, per_minute=self._history.per_minute, now=time.monotonic())

    async def page(self, plan: Plan, below: int, count: int) -> list[Trade]:
        """At most so many trades with ids below ``below``, the newest of them; none where the exchange tells none.

        Raises UnansweredError, ccxt.BadSymbol for a symbol it no longer lists, HistoryError for what cannot be read.
        """
        params = self._history.request(below, count)

        async def ask() -> Any:
            return await self._client.fetch_trades(plan.symbol, None, count, params)

        found = [self._history.trade(plan.native_id, trade["info"]) for trade in await self._patiently(ask)]
        if any(trade.trade_id is None for trade in found):
            raise HistoryError(f"{self._exchange} told a trade without an id")
        return [trade for trade in found if int(trade.trade_id or 0) < below]

    async def load_markets(self) -> None:
        """The exchange's list of symbols, without which ccxt knows none."""
        await self._patiently(self._client.load_markets)

    async def _patiently(self, ask: Callable[[], Any]) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            await sleep(self._budget.take(time.monotonic()))
            try:
                answer = await ask()
            except ccxt.OperationFailed as error:  # limits, maintenance, the network: it may be over soon
                pause = max(self._backoff.delay(), self._asked_for())
                if attempt == ATTEMPTS or pause > MOST_PATIENCE_S:
                    raise UnansweredError(
                        f"{self._exchange} did not answer after {attempt} attempts ({_short(error)}):"
                        " run it again later"
                    ) from error
                structlog.get_logger().warning(
                    "asking again", exchange=self._exchange, in_seconds=round(pause, 1), error=_short(error)
                )
                self._budget.pause(pause, time.monotonic())
            except ccxt.BadSymbol:
                raise
            except ccxt.BaseError as error:
                raise UnansweredError(
                    f"{self._exchange} refused to tell its past trades ({_short(error)}): check its address and terms"
                ) from error
            else:
                self._backoff.reset()
                return answer
        raise AssertionError("the last attempt raises")

    def _asked_for(self) -> float:
        """Seconds of the last reply's Retry-After; 0 where there is none that is a number."""
        headers = self._client.last_response_headers or {}
        text = next((str(value) for name, value in headers.items() if name.lower() == "retry-after"), "")
        return float(text) if text.isdecimal() else 0.0


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


@asynccontextmanager
async def asking(exchange: str, endpoint: Endpoint) -> AsyncIterator[Asked]:
    """An exchange ready to be asked; raises UnansweredError."""
    made = dialler(venue(exchange), endpoint)
    if (path := HISTORIES[exchange].keyless) is not None:
        made.sign = _without_key(made.sign, path)
    try:
        asked = Asked(exchange, made)
        await asked.load_markets()
        yield asked
    finally:
        await made.close()


def _without_key(sign: Callable[..., dict[str, Any]], path: str) -> Callable[..., dict[str, Any]]:
    """ccxt's ``sign``, asking for a public path without the key that ccxt wants for it."""

    def signed(asked: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        if asked != path:
            return sign(asked, *arguments, **options)
        request = sign("trades", *arguments, **options)
        return request | {"url": request["url"].replace("/trades", f"/{path}", 1)}

    return signed
