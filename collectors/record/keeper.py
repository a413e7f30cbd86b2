"""Keeping one part of an exchange recorded: a connection after another, and one beside another to hand over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from msgspec import Struct

from collectors.record.connection import Connection, Subscription, Timing
from collectors.record.pace import Backoff

_log = structlog.get_logger(__name__)
_REFUSED_S: Final = 3600.0
"""For so long a symbol that the exchange refused is left out; it may be listed, or open, later."""
_EARLY: Final = (0.90, 0.95)
"""At which part of a connection's life its successor is dialled; drawn, so that not all change at once."""


class _Life(Struct):
    connection: Connection
    task: asyncio.Task[Any]
    started: float
    due: float


class Keeper:
    """Records one subscription until ``stop``. ``make`` gives a new connection; seconds of life, None: for ever.

    A connection whose life nears its end, or whose books only a new subscription mends, is replaced: its successor
    starts beside it, and it retires a moment after the successor is synchronised, so that nothing is missed.
    """

    def __init__(
        self,
        part: Subscription,
        make: Callable[[Subscription, bool], Connection],
        *,
        lifetime: float | None,
        timing: Timing,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.part = part
        self._make = make
        self._lifetime = lifetime
        self._timing = timing
        self._draw = draw
        self._refused: dict[str, float] = {}
        self._is_one_by_one = False
        self._log = _log.bind(channel=part.channel)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep it recorded, until ``stop`` is set and all is closed."""
        backoff, mending = Backoff(first=0.2), Backoff(first=0.5, limit=60.0)
        current: _Life | None = None
        while not stop.is_set():
            if current is None:
                current = self._begin(stop)
                if current is None:
                    await wait_for(stop, 60.0)
                    continue
            if not await self._until_due(current, stop):
                self._learn(current.connection)
                if not stop.is_set():
                    delay = backoff.delay(time.monotonic() - current.started)
                    self._log.info("dialling again", in_seconds=round(delay, 2))
                    await wait_for(stop, delay)
                current = None
                continue
            if current.connection.broken.is_set():
                await wait_for(stop, mending.delay(time.monotonic() - current.started))
            if not stop.is_set():
                current = await self._hand_over(current, stop)
        if current is not None:
            await current.task

    def _begin(self, stop: asyncio.Event) -> _Life | None:
        now = time.monotonic()
        instruments = {
            native_id: symbol
            for native_id, symbol in self.part.instruments.items()
            if self._refused.get(native_id, 0.0) <= now
        }
        if not instruments:
            self._log.error("nothing to record: all symbols were refused", symbols=list(self.part.instruments)[:20])
            return None
        connection = self._make(Subscription(self.part.channel, instruments), self._is_one_by_one)
        due = float("inf")
        if self._lifetime is not None:
            due = now + self._lifetime * (_EARLY[0] + (_EARLY[1] - _EARLY[0]) * self._draw())
        return _Life(connection, asyncio.create_task(connection.live(stop)), now, due)

    async def _until_due(self, life: _Life, stop: asyncio.Event) -> bool:
        """Wait; True where it needs a successor, False where it is over. Raises what ``live`` raised."""
        while not life.task.done():
            if stop.is_set():
                await life.task
            elif life.connection.broken.is_set() or time.monotonic() >= life.due:
                return True
            else:
                await _either({life.task}, life.connection.broken.wait(), min(life.due - time.monotonic(), 60.0))
        life.task.result()
        return False

    async def _hand_over(self, old: _Life, stop: asyncio.Event) -> _Life | None:
        """A successor beside it; whichever goes on."""
        new = self._begin(stop)
        if new is None:
            old.connection.broken.clear()
            old.due = time.monotonic() + 60
            return old
        self._log.info("handing over", to=new.connection.journal.epoch, of=old.connection.journal.epoch)
        deadline = time.monotonic() + self._timing.handover
        while not new.task.done() and not old.task.done() and not new.connection.is_ready:
            if time.monotonic() > deadline or stop.is_set():
                break
            await asyncio.wait({new.task, old.task}, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        # What was sent to the old one before the new one's subscription may still be on its way, on a slower path.
        if new.connection.is_ready:
            await _either({new.task, old.task}, stop.wait(), self._timing.overlap)
        if new.task.done() and not stop.is_set():
            self._learn(new.connection)
            self._log.error("the successor failed, the old connection goes on", retry_in_seconds=30)
            old.connection.broken.clear()
            old.due = time.monotonic() + 30
            return old
        if not new.connection.is_ready and not stop.is_set() and not old.task.done():
            self._log.warning("the successor is not fully synchronised; handing over nonetheless")
        old.connection.retire()
        await old.task
        self._learn(old.connection)
        return new

    def _learn(self, connection: Connection) -> None:
        """Leave out what was refused; ask for each symbol by itself where a refusal did not tell which it meant."""
        until = time.monotonic() + _REFUSED_S
        self._refused.update(dict.fromkeys(connection.requests.refused_ids, until))
        self._is_one_by_one = self._is_one_by_one or connection.is_ambiguous


async def _either(tasks: set[asyncio.Task[Any]], other: Any, seconds: float) -> None:
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait({*tasks, waiting}, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
