"""One address of the simulated exchange: its WebSocket connections, its REST, its faults."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Protocol

import msgspec
from aiohttp import WSMsgType, web

from collectors.simulator import binance
from collectors.simulator.engine import BookState, PublicEvent, QuoteEvent
from collectors.simulator.faults import FRAME_FAULTS, ActiveFault, Applied, Fault, FaultKind, FaultLog
from collectors.simulator.market import Market

SLOW_CLIENT_BYTES = 64 << 20
"""A connection this far behind is dropped, as the real exchange drops slow readers."""
REORDER_WAIT_S = 0.5
"""How long a frame waits for the one that shall overtake it."""


class Feed(Protocol):
    """What a listener offers to its clients: the live engines or a replay."""

    def markets(self) -> list[Market]:
        """The symbols on offer."""

    def snapshot(self, native_id: str, limit: int, listener: str) -> BookState | None:
        """The best ``limit`` levels now; None where there is no such symbol. Noted in the ground truth."""

    def subscribed(self) -> None:
        """A client has its first stream."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way: what it is, and its JSON by skew, made once."""

    stream: str
    native_id: str
    ids: tuple[int, int]
    render: Callable[[int], str]
    _frames: dict[tuple[bool, int], bytes] = field(default_factory=dict)

    def frame(self, *, combined: bool, skew_ms: int) -> bytes:
        """The whole WebSocket frame, ready for the socket."""
        key = (combined, skew_ms)
        if key not in self._frames:
            self._frames[key] = text_frame(self.text(combined=combined, skew_ms=skew_ms))
        return self._frames[key]

    def text(self, *, combined: bool, skew_ms: int) -> str:
        text = self.render(skew_ms)
        return binance.combined(self.stream, text) if combined else text


def outgoing(event: PublicEvent) -> Outgoing:
    """An engine's event on its way out."""
    match event:
        case QuoteEvent():
            ids = (event.update_id, event.update_id)
        case _:
            ids = (event.trade_id, event.trade_id) if hasattr(event, "trade_id") else (event.first_id, event.last_id)
    return Outgoing(binance.stream_name(event), event.native_id, ids, lambda skew: binance.payload(event, skew))


def text_frame(text: str) -> bytes:
    """An unmasked final text frame (RFC 6455, section 5.2)."""
    body = text.encode()
    size = len(body)
    if size < 126:
        return bytes((0x81, size)) + body
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + body
    return b"\x81\x7f" + size.to_bytes(8, "big") + body


class Connection:
    """One WebSocket client. Frames collect in ``outbox`` and leave together once a tick."""

    def __init__(
        self, number: int, socket: web.WebSocketResponse, transport: asyncio.Transport, combined: bool
    ) -> None:
        self.number = number
        self.socket = socket
        self.transport = transport
        self.combined = combined
        self.streams: set[str] = set()
        self.outbox: list[bytes] = []
        self.late: list[tuple[float, int, bytes]] = []
        self.swapped: dict[str, tuple[float, bytes]] = {}
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
        self._log = log
        self._random = Random(f"{seed} {name}")  # noqa: S311 - reproducible on purpose
        self._ping_interval = ping_interval
        self._tickets = count()
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Open the port; raises OSError where it is taken. Port 0 becomes a free one."""
        app = web.Application()
        app.router.add_get("/api/v3/ping", self._ping)
        app.router.add_get("/api/v3/time", self._time)
        app.router.add_get("/api/v3/exchangeInfo", self._exchange_info)
        app.router.add_get("/api/v3/depth", self._depth)
        app.router.add_get("/ws", self._websocket)
        app.router.add_get("/ws/{streams:.*}", self._websocket)
        app.router.add_get("/stream", self._websocket)
        app.router.add_get("/stream/{streams:.*}", self._websocket)
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
                connection.outbox.append(event.frame(combined=connection.combined, skew_ms=0))

    def _send(self, connection: Connection, event: Outgoing, skew: int, now: float) -> None:
        frame = event.frame(combined=connection.combined, skew_ms=skew)
        kind = event.stream.partition("@")[2]
        frames = [frame]
        for active in self.faults:
            fault = active.fault
            if fault.kind == "stall" and active.is_on(now):
                self._record("stall", connection, event)
                return
            if fault.kind == "reorder" and event.stream in connection.swapped:
                continue  # this is the frame that overtakes
            if fault.kind not in FRAME_FAULTS or not active.hits(
                now, self._random, stream=kind, symbol=event.native_id
            ):
                continue
            match fault.kind:
                case "drop":
                    frames = []
                case "duplicate":
                    frames = [frame, frame]
                case "malformed":
                    text = event.text(combined=connection.combined, skew_ms=skew)
                    frames = [text_frame(text[: len(text) // 2])]
                case "delay":
                    heapq.heappush(connection.late, (now + fault.delay_ms / 1000, next(self._tickets), frame))
                    frames = []
                case "reorder":
                    connection.swapped[event.stream] = (now + REORDER_WAIT_S, frame)
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
                    connection.transport.write(b"\x89\x00")
            elif now - connection.heard > 4 * self._ping_interval:
                connection.transport.abort()
            self._retire(connection, now)

    def _release(self, connection: Connection, now: float) -> None:
        while connection.late and connection.late[0][0] <= now:
            connection.outbox.append(heapq.heappop(connection.late)[2])
        for stream, (due, frame) in list(connection.swapped.items()):
            if due <= now:
                connection.outbox.append(frame)
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
                now, self._random, stream=event.stream.partition("@")[2], symbol=event.native_id
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

    def _reply(self, request: web.Request, body: bytes) -> web.Response:
        self.requests += 1
        now = time.monotonic()
        for active in self.faults:
            fault = active.fault
            if fault.kind != "status" or (fault.path and not request.path.endswith(fault.path)):
                continue
            if active.hits(now, self._random, symbol=request.query.get("symbol")):
                self._record("status", None, detail=f"{fault.status} {request.path_qs}")
                message = "Too many requests." if fault.status in (418, 429) else "Service unavailable."
                headers = {"Retry-After": "1"} if fault.status in (418, 429, 503) else {}
                return web.json_response(body=binance.error_reply(-1003, message), status=fault.status, headers=headers)
        return web.json_response(body=body)

    async def _ping(self, request: web.Request) -> web.Response:
        return self._reply(request, b"{}")

    async def _time(self, request: web.Request) -> web.Response:
        return self._reply(request, b'{"serverTime":%d}' % (time.time_ns() // 1_000_000))

    async def _exchange_info(self, request: web.Request) -> web.Response:
        return self._reply(request, binance.exchange_info(self._feed.markets(), time.time_ns() // 1_000_000))

    async def _depth(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isascii() or not limit.isdigit() or int(limit) < 1:
            return web.json_response(body=binance.error_reply(-1100, f"Illegal parameter limit: {limit}."), status=400)
        symbol = request.query.get("symbol", "")
        if symbol not in {market.native_id for market in self._feed.markets()}:
            return web.json_response(body=binance.error_reply(-1121, "Invalid symbol."), status=400)
        refusal = self._reply(request, b"{}")
        if refusal.status != 200:
            return refusal
        state = self._feed.snapshot(symbol, min(int(limit), binance.DEPTH_LIMIT), self.name)
        if state is None:
            return web.json_response(body=binance.error_reply(-1000, "No book yet."), status=503)
        return web.json_response(body=binance.depth_reply(state))

    # WebSocket

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, autoping=False)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        self.accepted += 1
        # Under /ws events come bare, under /stream wrapped; ccxt names its connections by a number behind /ws.
        combined = "/ws" not in request.path
        connection = Connection(self.accepted, socket, transport, combined)
        self.connections.add(connection)
        query = request.query.get("streams", "").split("/")
        path = [part for part in request.match_info.get("streams", "").split("/") if "@" in part]
        self._subscribe(connection, [stream for stream in (*query, *path) if self._exists(stream)])
        try:
            async for message in socket:
                connection.heard = time.monotonic()
                if self._has_stalled(connection.heard):
                    continue
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._request(connection, message.data)
        finally:
            self._forget(connection)
        return socket

    async def _request(self, connection: Connection, text: str) -> None:
        reply = self.answer(connection, text)
        connection.outbox.append(text_frame(msgspec.json.encode(reply).decode()))
        connection.write()

    def answer(self, connection: Connection, text: str) -> dict[str, object]:
        """Carry out a client's request and return the reply, as the real exchange words it."""
        try:
            request = msgspec.json.decode(text, type=Request)
        except msgspec.DecodeError:
            return {"error": {"code": 3, "msg": "Invalid JSON: expected a request with method, params and id"}}
        match request.method:
            case "SUBSCRIBE" | "UNSUBSCRIBE":
                streams = [param for param in request.params if isinstance(param, str)]
                unknown = [stream for stream in streams if not self._exists(stream)]
                if unknown:
                    return {"error": {"code": 2, "msg": f"Invalid stream: {unknown[0]}"}, "id": request.id}
                if len(connection.streams | set(streams)) > binance.MAX_STREAMS:
                    return {"error": {"code": 2, "msg": "Invalid request: too many streams"}, "id": request.id}
                if request.method == "SUBSCRIBE":
                    self._subscribe(connection, streams)
                else:
                    self._unsubscribe(connection, streams)
                return {"result": None, "id": request.id}
            case "LIST_SUBSCRIPTIONS":
                return {"result": sorted(connection.streams), "id": request.id}
            case _:
                return {
                    "error": {"code": 2, "msg": f"Invalid request: unknown method {request.method}"},
                    "id": request.id,
                }

    def _exists(self, stream: str) -> bool:
        symbol, _, kind = stream.partition("@")
        return kind in binance.STREAM_KINDS and symbol in {m.native_id.lower() for m in self._feed.markets()}

    def _subscribe(self, connection: Connection, streams: list[str]) -> None:
        connection.streams.update(streams)
        for stream in streams:
            self.subscribers.setdefault(stream, set()).add(connection)
            self.acknowledged[stream] = time.time_ns()
        if streams:
            self._feed.subscribed()

    def _unsubscribe(self, connection: Connection, streams: list[str]) -> None:
        connection.streams.difference_update(streams)
        for stream in streams:
            self.subscribers.get(stream, set()).discard(connection)

    def _forget(self, connection: Connection) -> None:
        self._unsubscribe(connection, list(connection.streams))
        self.connections.discard(connection)


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    method: str
    params: list[str | bool] = msgspec.field(default_factory=list)
    id: int | str | None = None
