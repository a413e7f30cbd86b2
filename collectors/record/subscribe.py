"""Subscribing through ccxt: its watch calls, paced; what they send is known by the task that made them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any

import ccxt

from collectors.journal import Reason
from collectors.record.venues import Watch

REQUEST: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("REQUEST", default=())
"""The native ids that the watch call of this task is for."""


class ConnectionEndedError(Exception):
    """The connection is over; ``reason`` is that of the close mark."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


async def subscribe(
    exchange: Any,
    watch: Watch,
    instruments: Mapping[str, str],
    *,
    interval: float,
    is_one_by_one: bool,
    refused: Callable[[str, str], None],
    asked: Callable[[], None],
) -> None:
    """Make the watch calls, ``interval`` seconds apart, and stay until one fails. Raises ConnectionEndedError.

    A call for one symbol that ccxt itself refuses is told to ``refused``; ``asked`` is called after the last call.
    """
    exchange.open()  # some ask for a token by REST first, which needs the event loop
    whole = watch.is_many and not is_one_by_one
    parts = [tuple(instruments)] if whole else [(native_id,) for native_id in instruments]
    calls: set[asyncio.Task[None]] = set()

    async def call(native_ids: tuple[str, ...]) -> None:
        REQUEST.set(native_ids)
        symbols = [instruments[native_id] for native_id in native_ids]
        named: dict[str, Any] = {"params": dict(watch.params)}
        if watch.limit is not None:
            named["limit"] = watch.limit
        try:
            await getattr(exchange, watch.method)(symbols if watch.is_many else symbols[0], **named)
        except (ccxt.NetworkError, OSError) as error:
            raise ConnectionEndedError("disconnect", f"{type(error).__name__}: {error}") from error
        except ccxt.BaseError as error:
            detail = f"{type(error).__name__}: {error}"
            if len(native_ids) > 1 or len(instruments) == 1:
                raise ConnectionEndedError("venue", f"the exchange refused: {detail}") from error
            refused(native_ids[0], detail)

    async def pace() -> None:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(interval)
            calls.add(asyncio.create_task(call(part)))
        asked()
        await asyncio.Event().wait()

    pacer = asyncio.create_task(pace())
    try:
        while True:
            done, _ = await asyncio.wait({pacer, *calls}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                calls.discard(task)
                if not task.cancelled():
                    task.result()  # one that ended well was answered by something that is no data: the socket stays
    finally:
        pacer.cancel()
        for task in calls:
            task.cancel()
        await asyncio.gather(pacer, *calls, return_exceptions=True)
