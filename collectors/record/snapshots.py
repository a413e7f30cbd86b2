"""REST snapshots of books: asked for at the exchange's pace, repeated until one bridges, journalled as received."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

import aiohttp
import structlog

from collectors.decode import DecodeError, Decoder
from collectors.journal import Snapshot
from collectors.record.connection import Connection
from collectors.record.pace import Backoff, Budget, until_full_hour

_log = structlog.get_logger(__name__)
_URGENT, _ROUTINE = 0, 1
_TIMEOUT = aiohttp.ClientTimeout(total=15)


class Snapshots:
    """All of an exchange's snapshot requests, one at a time, within its budget; gaps go before routine."""

    def __init__(self, decoder: Decoder, rest: str | None, budget: Budget) -> None:
        self._decoder = decoder
        self._rest = rest
        self._budget = budget
        self._queue: asyncio.PriorityQueue[tuple[int, int, Connection, str]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._asked: set[tuple[int, str]] = set()
        self._backoffs: dict[tuple[int, str], Backoff] = {}
        self.taken = 0

    def want(self, connection: Connection, native_id: str) -> None:
        """A book needs a snapshot now."""
        self._ask(connection, native_id, _URGENT)

    def _ask(self, connection: Connection, native_id: str, priority: int) -> None:
        key = (connection.journal.epoch, native_id)
        if key not in self._asked and not connection.is_over:
            self._asked.add(key)
            self._queue.put_nowait((priority, next(self._order), connection, native_id))

    async def run(self) -> None:
        """Make the requests, until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                priority, _, connection, native_id = await self._queue.get()
                key = (connection.journal.epoch, native_id)
                if not connection.is_over:
                    await asyncio.sleep(self._budget.take(time.monotonic()))
                bridges = await self._take(session, connection, native_id)
                self._asked.discard(key)
                if bridges is False and not connection.is_over:
                    delay = self._backoffs.setdefault(key, Backoff(first=0.2, limit=10.0)).delay()
                    asyncio.get_running_loop().call_later(delay, self._ask, connection, native_id, priority)
                else:
                    self._backoffs.pop(key, None)

    async def routine(self, connections: Callable[[], list[Connection]]) -> None:
        """Ask for every book at each full hour, UTC midnight among them, until cancelled.

        Not where the exchange offers none by REST, nor where every message is a whole book.
        """
        stream = self._decoder.streams.get("book_events")
        if stream is None or stream.snapshot == "always" or type(self._decoder).snapshot_url is Decoder.snapshot_url:
            await asyncio.Event().wait()  # having nothing to do is no end
        while True:
            await asyncio.sleep(until_full_hour(time.time()))
            for connection in connections():
                if connection.is_subscribed and connection.subscription.channel == "book_events":
                    for native_id in connection.subscription.instruments.keys() - connection.requests.refused_ids:
                        self._ask(connection, native_id, _ROUTINE)

    async def _take(self, session: aiohttp.ClientSession, connection: Connection, native_id: str) -> bool | None:
        """One request; whether its snapshot bridges, None where no update shows it yet, False also for a failure."""
        if connection.is_over:
            return None
        url = self._decoder.snapshot_url(native_id, self._rest)
        requested = time.time_ns()
        try:
            async with session.get(url) as response:
                body = await response.read()
                received = time.time_ns()
                if response.status != 200:
                    self._refused(response, url, body)
                    return False
            reply = body.decode()
            snapshot = self._decoder.decode_snapshot(native_id, body)
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError, DecodeError) as error:
            _log.warning("snapshot failed", symbol=native_id, url=url, error=repr(error)[:300])
            return False
        if connection.is_over:
            return None
        connection.journal.mark(Snapshot(received, "book_events", native_id, url, requested, reply))
        self.taken += 1
        bridges = connection.books[native_id].snapshot(snapshot.last_id)
        _log.info("snapshot", symbol=native_id, last_id=snapshot.last_id, bridges=bridges)
        return bridges

    def _refused(self, response: aiohttp.ClientResponse, url: str, body: bytes) -> None:
        after = response.headers.get("Retry-After", "")
        wait = float(after) if after.isdigit() else 0.0
        if response.status in (418, 429):
            # Going on after these earns a ban.
            wait = wait or 30.0
            self._budget.pause(wait, time.monotonic())
        _log.warning("snapshot refused", url=url, status=response.status, reply=body[:200], wait_seconds=wait)
