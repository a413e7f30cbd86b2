"""One connection's life: a socket, its journal, its watch over both. It ends with a reason, never silently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import ccxt
import structlog
from aiohttp import WSMsgType
from ccxt.async_support.base.ws.client import MSG_SIZE_OVERHEAD
from msgspec import Struct

from collectors.decode import BookIds, Decoder
from collectors.events import Channel
from collectors.journal import Gap, JournalWriter, Reason, Subscribed
from collectors.record.book import BookChain
from collectors.record.venues import CONNECTION, Venue

_log = structlog.get_logger(__name__)


class Timing(Struct, frozen=True):
    """Seconds: pings go out, a silent socket is given up, a subscription must be acknowledged, shutdown may take."""

    ping: float = 3.0
    stall: float = 10.0
    acknowledge: float = 15.0
    farewell: float = 5.0


class ConnectionEndedError(Exception):
    """The connection is over; ``reason`` is that of the close mark."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


class Subscription(Struct, frozen=True):
    """What one connection records: ``instruments`` maps native ids to ccxt's symbols."""

    channel: Channel
    instruments: dict[str, str]


class Connection:
    """One epoch. ``live`` returns when it is over; its journal is closed then, or its loss was logged.

    ``want_snapshot`` is called with a native id whenever its book has no snapshot that bridges and none was asked for.
    """

    def __init__(
        self,
        *,
        exchange: Any,
        venue: Venue,
        decoder: Decoder,
        subscription: Subscription,
        journal: JournalWriter,
        want_snapshot: Callable[[Connection, str], None],
        timing: Timing,
    ) -> None:
        self.exchange = exchange
        self.venue = venue
        self.decoder = decoder
        self.subscription = subscription
        self.journal = journal
        self.want_snapshot = want_snapshot
        self.timing = timing
        self.books = {native_id: BookChain() for native_id in subscription.instruments}
        self.is_subscribed = False
        self.is_over = False
        self._replied_ns = 0
        self._client: Any = None
        self._opened = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._reply: Callable[[Any], None] = lambda _: None
        self._handle: Callable[[Any], None] | None = None
        self._is_pausing = False
        self._log = _log.bind(channel=subscription.channel, epoch=journal.epoch)

    async def live(self, stop: asyncio.Event) -> Reason:
        """Dial, subscribe, record until the socket, a task of ours or ``stop`` ends it; the reason."""
        CONNECTION.set(self)
        tasks = [
            asyncio.create_task(self.journal.run(), name="commits"),
            asyncio.create_task(self._watch(), name="watch"),
            asyncio.create_task(self._read(), name="read"),
            asyncio.create_task(self._keep_alive(), name="keep alive"),
            asyncio.create_task(self._guard_disk(), name="guard disk"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reason, detail = _why(done, stop)
        except asyncio.CancelledError:
            reason, detail = "shutdown", "cancelled"
        if reason == "shutdown":
            self._drain()
        self.is_over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        (self._log.info if reason == "shutdown" else self._log.warning)("connection over", reason=reason, detail=detail)
        await asyncio.gather(self._hang_up(), self._close_journal(reason, stop))
        return reason

    # -- called by the exchange's client --

    def adopt(self, client: Any) -> None:
        """Take over ccxt's new client: it dials and sends, we receive, and hand it what is not data."""
        self._client = client
        client.connection_of_ours = self
        client.receive_loop = lambda: None
        if client.ping is None:
            client.keepAlive = 0  # ends ccxt's ping loop: ours pings at the protocol's level
        self._reply = client.handle_text_or_binary_message
        client.handle_text_or_binary_message = self._frame  # what ccxt unpacked of a binary message comes here

    def opened(self) -> None:
        """The socket is open."""
        self._opened.set()

    def acknowledged(self) -> None:
        """The exchange acknowledged our one subscription with the frame just received."""
        if self._acknowledged.is_set():
            return
        self._acknowledged.set()
        symbols = list(self.subscription.instruments)
        self.journal.mark(Subscribed(self._replied_ns, self.subscription.channel, symbols))
        self.is_subscribed = True
        self._log.info("subscribed", symbols=len(symbols))
        if self.subscription.channel == "book_events":
            for native_id in symbols:
                self.want_snapshot(self, native_id)

    async def _read(self) -> None:
        """Receive until the socket is closed. Stamp, journal, and only then look inside."""
        await self._opened.wait()
        journal, client, prefix, clock = self.journal, self._client, self.venue.data_prefix, time.time_ns
        append_line, inspect, other, cut = journal.append_line, self._inspect, self._other, len(prefix)
        is_book, text = self.subscription.channel == "book_events", WSMsgType.TEXT

        def handle(message: Any) -> None:
            if message.type is text:
                data = message.data
                now = clock()
                append_line(f"{now} {data}\n")
                if is_book or data[:cut] != prefix:
                    inspect(now, data.encode(errors="surrogateescape"), data)
            else:
                other(message)

        self._handle = handle
        while True:
            handle(await client.connection.receive())
            _empty(client.buffer, handle)
            if journal.is_full:
                await self._pause()

    def _other(self, message: Any) -> None:
        """What is no text: heartbeats, binary frames, the end."""
        if message.type in (WSMsgType.PING, WSMsgType.PONG):
            self.journal.heartbeat(time.time_ns())
        self._guarded(type(self._client).handle_message, self._client, message)
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            raise ConnectionEndedError(
                "disconnect", f"socket closed: {message.type.name} {message.data} {message.extra}"
            )

    def _frame(self, data: str | bytes) -> None:
        """A frame that ccxt unpacked."""
        now = time.time_ns()
        self.journal.append(now, data)
        self._inspect(now, data.encode(errors="surrogateescape") if isinstance(data, str) else data, data)

    def _inspect(self, now: int, raw: bytes, data: str | bytes) -> None:
        """Check a book's chain; hand replies to ccxt."""
        if self.subscription.channel == "book_events" and (found := self.decoder.book_ids(raw)):
            for ids in found:
                self._book(ids, now)
        elif self.decoder.control(raw) is not None:
            self._replied_ns = now
            self._guarded(self._reply, data)

    def _guarded(self, handler: Callable[..., Any], *arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception:  # noqa: BLE001  ccxt's raise anything; the frame is in the journal, so go on
            self._log.exception("a handler failed on a reply", frame=str(arguments[-1])[:200])

    def _book(self, ids: BookIds, now: int) -> None:
        book = self.books.get(ids.native_id)
        if book is None:
            return
        was_waiting, was_bridged = book.is_waiting, book.is_bridged
        broken = book.update(ids)
        if broken is not None:
            self.journal.mark(Gap(now, "book_events", ids.native_id, broken.expected, broken.found))
            self._log.warning("gap", symbol=ids.native_id, expected=broken.expected, found=broken.found)
        if not book.is_bridged and (was_bridged or (was_waiting and not book.is_waiting)):
            self.want_snapshot(self, ids.native_id)

    # -- tasks --

    async def _watch(self) -> None:
        symbols = list(self.subscription.instruments.values())
        try:
            await self.venue.watch[self.subscription.channel](self.exchange, symbols)
        except (ccxt.NetworkError, OSError) as error:
            raise ConnectionEndedError("disconnect", f"{type(error).__name__}: {error}") from error
        except ccxt.BaseError as error:
            raise ConnectionEndedError("venue", f"the exchange refused: {type(error).__name__}: {error}") from error
        raise ConnectionEndedError("crash", "ccxt resolved a watch that no data should have reached")

    async def _keep_alive(self) -> None:
        """Ping, and tell a quiet market from a dead socket by what is received."""
        await self._opened.wait()
        opened = heard = time.monotonic()
        alive = 0
        while True:
            try:
                async with asyncio.timeout(self.timing.stall):
                    await self._client.connection.ping()
            except (OSError, TimeoutError) as error:
                raise ConnectionEndedError("disconnect", f"cannot ping: {error!r}") from error
            await asyncio.sleep(self.timing.ping)
            now = time.monotonic()
            if self.journal.alive != alive or self._is_pausing:  # while we do not listen, silence says nothing
                heard, alive = now, self.journal.alive
            elif now - heard > self.timing.stall:
                raise ConnectionEndedError("stall", f"nothing received for {now - heard:.1f} s, not even pongs")
            if not self._acknowledged.is_set() and now - opened > self.timing.acknowledge:
                raise ConnectionEndedError("venue", f"no reply to the subscription within {now - opened:.0f} s")

    async def _pause(self) -> None:
        self._log.warning("the journal's buffer is full: not reading the socket", fill=round(self.journal.fill, 2))
        self._is_pausing = True
        await self.journal.wait_for_room()
        self._is_pausing = False
        self._log.info("reading the socket again", fill=round(self.journal.fill, 2))

    async def _guard_disk(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            if self.journal.failing_since is not None and self.journal.is_full:
                raise ConnectionEndedError("disk", "the journal cannot be written and its buffer is full")

    # -- the end --

    def _drain(self) -> None:
        """Journal what was received and not yet looked at."""
        buffer = self._client.buffer if self._client is not None else None
        while buffer and self._handle is not None:
            message, _ = buffer.popleft()
            if message.type is WSMsgType.TEXT:
                self._handle(message)

    async def _hang_up(self) -> None:
        client: Any = self._client
        if client is None:
            return
        clients: dict[str, Any] = self.exchange.clients or {}
        url: str = client.url
        if clients.get(url) is client:
            del clients[url]
        try:
            async with asyncio.timeout(self.timing.farewell):
                await client.close()
        except Exception as error:  # noqa: BLE001  it is over for us, whatever ccxt and the socket make of it
            self._log.info("the socket was not closed politely", error=repr(error))

    async def _close_journal(self, reason: Reason, stop: asyncio.Event) -> None:
        """Close it, however long the disk takes nothing; at shutdown only so long as we may take."""
        if not self._opened.is_set() and not self.journal.frames:
            await self.journal.abandon()  # never connected: no file was made
            return
        delay = 0.5
        deadline = None
        while True:
            try:
                await self.journal.close(reason)
            except OSError as error:
                self._log.error("cannot close the journal", error=str(error), retry_in_seconds=delay)
            else:
                return
            if stop.is_set():
                deadline = deadline or time.monotonic() + self.timing.farewell
                if time.monotonic() >= deadline:
                    break
            await asyncio.sleep(min(delay, self.timing.farewell))
            delay = min(delay * 2, 15.0)
        self._log.error(
            "uncommitted frames are lost: coverage ends at the last commit", alive=self.journal.durable_alive
        )
        await self.journal.abandon()


def _empty(queue: Any, handle: Callable[[Any], None]) -> None:
    """Handle all but one of the messages that aiohttp holds, without a turn of the event loop for each.

    aiohttp resumes reading by the size of what it gives out itself, so the one left behind carries the size of all.
    """
    if queue is None or len(queue) < 2:
        return
    taken = 0
    take = queue.popleft
    for _ in range(len(queue) - 1):
        message, size = take()
        taken += size + MSG_SIZE_OVERHEAD
        handle(message)
    message, size = queue[0]
    queue[0] = (message, size + taken)


def _why(done: set[asyncio.Task[Any]], stop: asyncio.Event) -> tuple[Reason, str]:
    """The first cause among what ended; a task that failed by itself is a crash, with its traceback in the log."""
    for future in done:
        error = future.exception()
        if isinstance(error, ConnectionEndedError):
            return error.reason, error.detail
        if error is not None:
            _log.error("a task of the connection failed", exc_info=error)
            return "crash", repr(error)
    return ("shutdown", "asked to stop") if stop.is_set() else ("crash", "a task ended without being asked to")
