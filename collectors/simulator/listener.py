"""One address of the simulated exchange: its WebSocket connections, its REST, its faults."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from random import Random
from typing import Protocol

from aiohttp import WSMsgType, web

from collectors.simulator.engine import BookState, TradeEvent
from collectors.simulator.faults import FRAME_FAULTS, ActiveFault, Applied, Fault, FaultKind, FaultLog
from collectors.simulator.market import Market
from collectors.simulator.wire.contract import Call, Handler, Outgoing, Payload, Session, Wire, frame

SLOW_CLIENT_BYTES = 64 << 20
"""A connection this far behind is dropped, as the real exchange drops slow readers."""
REORDER_WAIT_S = 0.5
"""How long a frame waits for the one that shall overtake it."""
LATE_BOOK_S = 0.15
"""How long a whole book is on its way where updates overtake it: longer than from one of them to the next."""


class Feed(Protocol):
    """What a listener offers to its clients: the live engines or a replay."""

    def markets(self) -> list[Market]:
        """The symbols on offer."""

    def snapshot(self, native_id: str, limit: int, listener: str) -> BookState | None:
        """The best ``limit`` levels now; None where there is no such symbol. Noted in the ground truth."""

    def history(self, native_id: str) -> Sequence[TradeEvent]:
        """The last trades, the oldest first."""

    def served(self, state: BookState, listener: str) -> None:
        """A whole book was sent over a socket: note it in the ground truth."""

    def has_book(self, stream: str) -> bool:
        """Whether a stream is that of a book."""

    def subscribed(self) -> None:
        """A client has its first stream."""


class Connection:
    """One WebSocket client. Frames collect in ``outbox`` and leave together once a tick."""

    def __init__(
        self, number: int, socket: web.WebSocketResponse, transport: asyncio.Transport, session: Session
    ) -> None:
        self.number = number
        self.socket = socket
        self.transport = transport
        self.session = session
        self.outbox: list[bytes] = []
        self.late: list[tuple[float, int, bytes]] = []
        self.swapped: dict[str, tuple[float, bytes]] = {}
        self.awaiting: set[str] = set()
        """Book streams asked for, whose whole book comes with the next turn."""
        self.opened = time.monotonic()
        self.heard = self.opened
        self.pinged = self.opened

    def write(self) -> None:
        """Hand the outbox to the socket."""
        if self.outbox:
            data = b"".join(self.outbox)
            self.outbox.clear()
            if not self.transport.is_closing():
                self.transport.write(data)


class Listener:
    """Serves one host:port. All methods run in the event loop of ``start``."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        feed: Feed,
        wire: Wire,
        *,
        seed: int,
        ping_interval: float,
        log: FaultLog,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.faults: list[ActiveFault] = []
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.frames = 0
        self.requests = 0
        self.subscribers: dict[str, set[Connection]] = {}
        self.acknowledged: dict[str, int] = {}
        self._feed = feed
        self._wire = wire
        self._log = log
        self._random = Random(f"{seed} {name}")  # noqa: S311 - reproducible on purpose
        self._ping_interval = ping_interval
        self._tickets = count()
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Open the port; raises OSError where it is taken. Port 0 becomes a free one."""
        app = web.Application()
        for (method, path), handler in self._wire.routes().items():
            app.router.add_route(method, path, partial(self._rest, handler))
        for path in self._wire.paths:
            app.router.add_get(path, self._websocket)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._open()

    async def stop(self) -> None:
        """Close the port and every connection."""
        self._close()
        self.disconnect("stop", record=False)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _open(self) -> None:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(server, self.host, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    # Frames

    def publish(self, event: Outgoing, now: float) -> None:
        """Queue an event for every connection subscribed to its stream, past the faults."""
        connections = self.subscribers.get(event.stream)
        if not connections:
            return
        skew = self._skew(event, now) if self.faults else 0
        for connection in connections:
            self.frames += 1
            if self.faults or connection.swapped:
                self._send(connection, event, skew, now)
            else:
                connection.outbox.append(event.frame(0, connection.session.flavour))

    def open_books(self, stream: str, state: BookState, now_ms: int) -> None:
        """Send the whole book to those that asked for it since the last event of the stream; updates follow it."""
        for connection in self.connections:
            if stream in connection.awaiting:
                connection.awaiting.discard(stream)
                whole = frame(self._wire.snapshot(state, stream, now_ms, connection.session.flavour))
                if self._wire.answers_late:
                    due = time.monotonic() + LATE_BOOK_S
                    heapq.heappush(connection.late, (due, next(self._tickets), whole))
                else:
                    connection.outbox.append(whole)
                self.subscribers.setdefault(stream, set()).add(connection)
                self._feed.served(state, self.name)

    def awaits(self, stream: str) -> bool:
        """Whether somebody waits for the whole book of a stream."""
        return any(stream in connection.awaiting for connection in self.connections)

    def _send(self, connection: Connection, event: Outgoing, skew: int, now: float) -> None:
        whole = event.frame(skew, connection.session.flavour)
        frames = [whole]
        for active in self.faults:
            fault = active.fault
            if fault.kind == "stall" and active.is_on(now):
                self._record("stall", connection, event)
                return
            if fault.kind == "reorder" and event.stream in connection.swapped:
                continue  # this is the frame that overtakes
            if fault.kind not in FRAME_FAULTS or not active.hits(
                now, self._random, stream=event.kind, symbol=event.native_id
            ):
                continue
            match fault.kind:
                case "drop":
                    frames = []
                case "duplicate":
                    frames = [whole, whole]
                case "malformed":
                    payload = event.render(skew, connection.session.flavour)
                    frames = [frame(payload[: len(payload) // 2])]
                case "delay":
                    heapq.heappush(connection.late, (now + fault.delay_ms / 1000, next(self._tickets), whole))
                    frames = []
                case "reorder":
                    connection.swapped[event.stream] = (now + REORDER_WAIT_S, whole)
                    self._record("reorder", connection, event)
                    return
            self._record(fault.kind, connection, event)
            break
        connection.outbox.extend(frames)
        if frames and event.stream in connection.swapped:
            connection.outbox.append(connection.swapped.pop(event.stream)[1])

    def tick(self, now: float) -> None:
        """Send what is queued and due; ping, time out and end connections; end faults that are over."""
        if self.faults:
            self.faults = [active for active in self.faults if not active.is_over(now)]
        for connection in list(self.connections):
            if self._has_stalled(now):
                continue
            self._release(connection, now)
            connection.write()
            if connection.transport.get_write_buffer_size() > SLOW_CLIENT_BYTES:
                connection.transport.abort()
            elif now - connection.pinged >= self._ping_interval:
                connection.pinged = now
                if not connection.transport.is_closing():
                    ping = self._wire.ping(time.time_ns() // 1_000_000)
                    connection.transport.write(b"\x89\x00" if ping is None else frame(ping))
            elif now - connection.heard > 4 * self._ping_interval:
                connection.transport.abort()
            self._retire(connection, now)

    def _release(self, connection: Connection, now: float) -> None:
        while connection.late and connection.late[0][0] <= now:
            connection.outbox.append(heapq.heappop(connection.late)[2])
        for stream, (due, whole) in list(connection.swapped.items()):
            if due <= now:
                connection.outbox.append(whole)
                del connection.swapped[stream]

    def _retire(self, connection: Connection, now: float) -> None:
        for active in self.faults:
            if (
                active.fault.kind == "lifetime"
                and active.is_on(now)
                and now - connection.opened >= (active.fault.seconds or 0)
                and connection in self.connections
                and active.hits(now, self._random)
            ):
                self._record("lifetime", connection)
                self._forget(connection)
                # Close frame 1001, then the end of the stream: how a server says that it goes away.
                connection.transport.write(b"\x88\x02\x03\xe9")
                connection.transport.close()

    def _skew(self, event: Outgoing, now: float) -> int:
        for active in self.faults:
            if active.fault.kind == "skew" and active.hits(
                now, self._random, stream=event.kind, symbol=event.native_id
            ):
                self._record("skew", None, event)
                return active.fault.skew_ms
        return 0

    def _has_stalled(self, now: float) -> bool:
        return any(active.fault.kind == "stall" and active.is_on(now) for active in self.faults)

    # Faults

    def disconnect(self, why: FaultKind | str, *, record: bool = True) -> int:
        """Drop every connection without a goodbye; returns how many there were."""
        dropped = list(self.connections)
        for connection in dropped:
            if record:
                self._record("disconnect", connection, detail=why)
            self._forget(connection)
            connection.transport.abort()
        return len(dropped)

    async def inject(self, fault: Fault) -> None:
        """Make a fault active; its own time and count end it."""
        active = ActiveFault(fault, time.monotonic())
        if fault.kind not in ("disconnect", "refuse"):
            self.faults.append(active)
            return
        if fault.after:
            await asyncio.sleep(fault.after)
        if fault.kind == "refuse":
            self._close()
            self._record("refuse", None, detail=f"{fault.seconds} s")
        self.disconnect(fault.kind)
        if fault.kind == "refuse":
            await asyncio.sleep(fault.seconds or 0)
            if self._server is None:
                await self._open()

    async def clear(self) -> None:
        """End every fault and open the port again."""
        self.faults.clear()
        if self._server is None:
            await self._open()

    def _record(
        self, kind: FaultKind, connection: Connection | None, event: Outgoing | None = None, detail: str = ""
    ) -> None:
        self._log.record(
            Applied(
                time.time_ns(),
                kind,
                self.name,
                connection.number if connection else None,
                event.stream if event else None,
                event.native_id if event else None,
                event.ids if event else None,
                detail,
            )
        )

    # REST

    async def _rest(self, handler: Handler, request: web.Request) -> web.Response:
        self.requests += 1
        now = time.monotonic()
        for active in self.faults:
            fault = active.fault
            if fault.kind != "status" or (fault.path and not request.path.endswith(fault.path)):
                continue
            if active.hits(now, self._random, symbol=request.query.get("symbol")):
                self._record("status", None, detail=f"{fault.status} {request.path_qs}")
                headers = {"Retry-After": "1"} if fault.status in (418, 429, 503) else {}
                return web.json_response(body=self._wire.refusal(fault.status), status=fault.status, headers=headers)
        call = Call(
            path=request.path,
            query=request.query,
            base=request.host,
            now_ms=time.time_ns() // 1_000_000,
            markets=self._feed.markets(),
            snapshot=lambda native_id, limit: self._feed.snapshot(native_id, limit, self.name),
            history=self._feed.history,
        )
        body, status = handler(call)
        return web.json_response(body=body, status=status)

    # WebSocket

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, autoping=False)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        self.accepted += 1
        connection = Connection(self.accepted, socket, transport, self._wire.connect(request.path, request.query))
        self.connections.add(connection)
        known = self._wire.streams(self._feed.markets())
        connection.outbox += map(frame, connection.session.greetings)
        self._subscribe(connection, [stream for stream in connection.session.subscribe if stream in known])
        connection.write()
        try:
            async for message in socket:
                connection.heard = time.monotonic()
                if self._has_stalled(connection.heard):
                    continue
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._answer(connection, message.data)
        finally:
            self._forget(connection)
        return socket

    def _answer(self, connection: Connection, message: Payload) -> None:
        """Carry out a client's message; what it begins comes behind the reply."""
        answer = self._wire.answer(connection.session, message, self._wire.streams(self._feed.markets()))
        connection.outbox += map(frame, answer.replies)
        self._unsubscribe(connection, answer.unsubscribe)
        self._subscribe(connection, answer.subscribe)
        connection.awaiting.update(answer.books)
        connection.write()

    def _subscribe(self, connection: Connection, streams: Sequence[str]) -> None:
        connection.session.streams.update(streams)
        for stream in streams:
            if self._wire.sends_snapshots and self._feed.has_book(stream):
                connection.awaiting.add(stream)
            else:
                self.subscribers.setdefault(stream, set()).add(connection)
            self.acknowledged[stream] = time.time_ns()
        if streams:
            self._feed.subscribed()

    def _unsubscribe(self, connection: Connection, streams: Sequence[str]) -> None:
        connection.session.streams.difference_update(streams)
        connection.awaiting.difference_update(streams)
        for stream in streams:
            self.subscribers.get(stream, set()).discard(connection)

    def _forget(self, connection: Connection) -> None:
        self._unsubscribe(connection, list(connection.session.streams))
        self.connections.discard(connection)
