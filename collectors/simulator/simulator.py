"""The simulated exchange: engines in real time, listeners for clients, ground truth, faults, a control API."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from types import TracebackType

import msgspec
from aiohttp import web
from msgspec import Struct, field

from collectors.simulator.engine import BookState, ChangeEvent, Engine, Event, TradeEvent
from collectors.simulator.faults import Fault, FaultLog
from collectors.simulator.listener import Listener
from collectors.simulator.market import Market, market_of
from collectors.simulator.replay import Replay, ReplayConfig
from collectors.simulator.truth import Served, Truth, TruthWriter
from collectors.simulator.wire import wire

TICK_S = 0.005
DEPTH_INTERVAL_S = 0.1
MAX_CATCH_UP_S = 0.5
"""Orders owed for longer than this are forgone: a process that was held up does not flood its clients."""


class Address(Struct, frozen=True):
    """Where a listener listens; port 0 takes a free one."""

    name: str = "a"
    host: str = "127.0.0.1"
    port: int = 0


class Config(Struct, frozen=True):
    """A simulated exchange; ``exchange`` is ccxt's id of whose wire format it speaks. ``symbols`` are named as in
    MARKETS, whatever the exchange calls them. ``rate`` is in orders per second and symbol;
    ``levels`` are kept a side at least.

    First ids come from the clock unless given, so that ids never repeat over restarts. Truth is written to
    ``truth_folder`` and kept in memory where ``keep_truth``: only for tests, as both grow without bound. ``history`` is
    how many trades of a symbol REST still tells.
    """

    exchange: str = "binance"
    symbols: list[str] = field(default_factory=lambda: ["BTCUSDT"])
    listeners: list[Address] = field(default_factory=lambda: [Address()])
    rate: float = 200.0
    levels: int = 3000
    seed: int = 1
    control: Address | None = None
    truth_folder: Path | None = None
    keep_truth: bool = True
    first_update_id: int | None = None
    first_trade_id: int | None = None
    ping_interval: float = 20.0
    history: int = 100_000
    replay: ReplayConfig | None = None


class Simulator:
    """A running exchange: ``async with Simulator(Config(...)) as simulator``. Not for use across threads."""

    def __init__(self, config: Config) -> None:
        """Raises ValueError for an exchange or a symbol it does not know."""
        self.config = config
        self.wire = wire(config.exchange)
        self.truth = Truth()
        self.log = FaultLog()
        self.is_paused = False
        now_ms = time.time_ns() // 1_000_000
        traded = [] if config.replay else [self.wire.market(market_of(symbol)) for symbol in config.symbols]
        self.engines = {
            market.native_id: Engine(
                market,
                seed=config.seed,
                levels=config.levels,
                first_update_id=config.first_update_id or now_ms * 1000,
                first_trade_id=config.first_trade_id or now_ms,
            )
            for market in traded
        }
        self.wire.book = lambda native_id, limit: self.engines[native_id].state(limit)
        if config.replay and config.exchange != "binance":
            raise ValueError(f"replay of {config.exchange}: recorded frames of binance are replayed only")
        self.replay = Replay(config.replay) if config.replay else None
        self._books = self.wire.books(self.markets())
        self.listeners = {
            address.name: Listener(
                address.name,
                address.host,
                address.port,
                self,
                self.wire,
                seed=config.seed,
                ping_interval=config.ping_interval,
                log=self.log,
            )
            for address in config.listeners
        }
        self._history = {native_id: deque[TradeEvent](maxlen=config.history) for native_id in self.engines}
        self._writer = TruthWriter(config.truth_folder) if config.truth_folder else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscribed = asyncio.Event()
        self._control: web.AppRunner | None = None
        self.control_port = 0

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def rest_url(self, listener: str = "a") -> str:
        """Base of the REST API, for a recorder's endpoint."""
        return f"http://{self.listeners[listener].host}:{self.listeners[listener].port}"

    def ws_url(self, listener: str = "a") -> str:
        """Base of the WebSocket API, for a recorder's endpoint."""
        return f"ws://{self.listeners[listener].host}:{self.listeners[listener].port}"

    async def start(self) -> None:
        """Open the ports and begin to trade; raises OSError where a port is taken."""
        for engine in self.engines.values():
            initial = engine.state()
            if self.config.keep_truth:
                self.truth.start(initial)
            if self._writer is not None:
                self._writer.start(initial)
        for listener in self.listeners.values():
            await listener.start()
        if self.config.control is not None:
            await self._start_control(self.config.control)
        self._spawn(self._replay_loop(self.replay) if self.replay else self._trade())

    async def stop(self) -> None:
        """Publish what is due, close every connection, finish the truth."""
        self.pause()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self.listeners.values():
            await listener.stop()
        if self._control is not None:
            await self._control.cleanup()
        if self._writer is not None:
            self._writer.close()

    # Trading

    def pause(self) -> None:
        """Stop trading; the last depth events go out and the truth is on disk, so both are complete."""
        if not self.is_paused:
            self.is_paused = True
            self._publish_depth()
            self._flush_frames()
        if self._writer is not None:
            self._writer.flush()

    def resume(self) -> None:
        """Go on trading."""
        self.is_paused = False

    def trade(self, orders: int) -> None:
        """Carry out so many orders in every symbol at once, beside the running flow: a burst."""
        now_ms = time.time_ns() // 1_000_000
        for engine in self.engines.values():
            for _ in range(orders):
                for event in engine.order(now_ms):
                    self._emit(event)
        self._flush_frames()

    async def _trade(self) -> None:
        owed, last = 0.0, time.monotonic()
        depth_at = last + DEPTH_INTERVAL_S
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if self.is_paused:
                owed = 0.0
            else:
                owed += min(now - last, MAX_CATCH_UP_S) * self.config.rate
                orders = int(owed)
                owed -= orders
                self.trade(orders)
                if now >= depth_at:
                    self._publish_depth()
                    depth_at = max(depth_at + DEPTH_INTERVAL_S, now)
            last = now
            self._flush_frames()

    def _publish_depth(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        for engine in self.engines.values():
            event = engine.publish_depth(now_ms)
            if event is not None:
                self._emit(event)
        # Now that all changes are published, whole books fit between the last update and the next.
        for stream, native_id in self._books.items():
            waiting = [listener for listener in self.listeners.values() if listener.awaits(stream)]
            if waiting:
                state = self.engines[native_id].state(self.wire.depth)
                for listener in waiting:
                    listener.open_books(stream, state, now_ms)

    def _emit(self, event: Event) -> None:
        sent_ns = time.time_ns()
        if self.config.keep_truth:
            self.truth.add(event, sent_ns)
        if self._writer is not None:
            self._writer.add(event, sent_ns)
        if isinstance(event, TradeEvent):
            self._history[event.native_id].append(event)
        if not isinstance(event, ChangeEvent):
            frame = self.wire.outgoing(event)
            now = time.monotonic()
            for listener in self.listeners.values():
                listener.publish(frame, now)

    def _flush_frames(self) -> None:
        now = time.monotonic()
        for listener in self.listeners.values():
            listener.tick(now)

    # Replay

    async def _replay_loop(self, replay: Replay) -> None:
        """Replay once somebody has subscribed; as fast as possible means: as fast as the slowest client reads."""

        async def tick_until(wanted: float) -> None:
            while True:
                self._flush_frames()
                left = wanted - time.monotonic()
                if left <= 0 and not any(
                    connection.transport.get_write_buffer_size() > 1 << 20
                    for listener in self.listeners.values()
                    for connection in listener.connections
                ):
                    return
                await asyncio.sleep(min(max(left, 0.001), TICK_S))

        await self._subscribed.wait()
        await asyncio.sleep(replay.config.lead_s)
        started = time.monotonic()
        for due_s, event in replay.events():
            now = time.monotonic()
            if due_s is None:
                if replay.sent % 200 == 0:
                    await tick_until(now)
            elif started + due_s > now:
                await tick_until(started + due_s)
            for listener in self.listeners.values():
                listener.publish(event, now)
        replay.is_done = True
        while True:
            self._flush_frames()
            await asyncio.sleep(TICK_S)

    # What listeners offer

    def markets(self) -> list[Market]:
        """The symbols on offer."""
        if self.replay is not None:
            return self.replay.markets
        return [engine.market for engine in self.engines.values()]

    def snapshot(self, native_id: str, limit: int, listener: str) -> BookState | None:
        """The best levels now; noted in the truth."""
        if self.replay is not None:
            return self.replay.snapshot(native_id, limit)
        state = self.engines[native_id].state(min(limit, self.wire.depth))
        self.served(state, listener, limit)
        return state

    def history(self, native_id: str) -> deque[TradeEvent]:
        """The last trades, the oldest first; none of a replay."""
        return self._history.get(native_id, deque())

    def served(self, state: BookState, listener: str, limit: int | None = None) -> None:
        """Note in the truth that a client was sent a whole book."""
        served = Served(time.time_ns(), state.native_id, listener, state.update_id, limit or self.wire.depth)
        if self.config.keep_truth:
            self.truth.served(served)
        if self._writer is not None:
            self._writer.served(served)

    def has_book(self, stream: str) -> bool:
        """Whether a stream is that of a book."""
        return stream in self._books

    def subscribed(self) -> None:
        """A client has its first stream."""
        self._subscribed.set()

    # Faults and control

    def fault(self, fault: Fault) -> None:
        """Inject a fault into its listener, or all for ``*``; raises ValueError for an unknown listener."""
        if fault.listener != "*" and fault.listener not in self.listeners:
            raise ValueError(f"listener {fault.listener!r}: unknown; expected * or one of {', '.join(self.listeners)}")
        for name, listener in self.listeners.items():
            if fault.listener in ("*", name):
                self._spawn(listener.inject(fault))

    async def clear_faults(self) -> None:
        """End every fault at once, and open every port."""
        for listener in self.listeners.values():
            await listener.clear()

    def status(self) -> dict[str, object]:
        """What goes on: for the control API and for people."""
        return {
            "paused": self.is_paused,
            "rate": self.config.rate,
            "symbols": {
                symbol: {
                    "update_id": engine.update_id,
                    "trade_id": engine.trade_id,
                    "bids": engine.book.depth(is_bid=True),
                    "asks": engine.book.depth(is_bid=False),
                }
                for symbol, engine in self.engines.items()
            },
            "replay": None if self.replay is None else {"sent": self.replay.sent, "done": self.replay.is_done},
            "listeners": {
                name: {
                    "url": self.rest_url(name),
                    "connections": len(listener.connections),
                    "accepted": listener.accepted,
                    "streams": sorted(stream for stream, them in listener.subscribers.items() if them),
                    "acknowledged": listener.acknowledged,
                    "frames": listener.frames,
                    "requests": listener.requests,
                }
                for name, listener in self.listeners.items()
            },
            "faults": {f"{listener} {kind}": n for (listener, kind), n in self.log.counts.items()},
        }

    async def _start_control(self, address: Address) -> None:
        async def status(_: web.Request) -> web.Response:
            return _json(self.status())

        async def inject(request: web.Request) -> web.Response:
            try:
                self.fault(msgspec.json.decode(await request.read(), type=Fault))
            except (ValueError, msgspec.DecodeError) as error:
                return _json({"error": str(error)}, 400)
            return _json({})

        async def applied(_: web.Request) -> web.Response:
            return _json(list(self.log.applied))

        async def clear(_: web.Request) -> web.Response:
            await self.clear_faults()
            return _json({})

        async def pause(_: web.Request) -> web.Response:
            self.pause()
            return _json(self.status())

        async def resume(_: web.Request) -> web.Response:
            self.resume()
            return _json(self.status())

        app = web.Application()
        app.router.add_get("/status", status)
        app.router.add_get("/faults", applied)
        app.router.add_post("/faults", inject)
        app.router.add_delete("/faults", clear)
        app.router.add_post("/pause", pause)
        app.router.add_post("/resume", resume)
        self._control = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._control.setup()
        site = web.TCPSite(self._control, address.host, address.port)
        await site.start()
        self.control_port = self._control.addresses[0][1]

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nobody awaits a task of the exchange: its loop must say why it stands still.
            task.get_loop().call_exception_handler({"message": "the simulated exchange failed", "exception": error})


def _json(value: object, status: int = 200) -> web.Response:
    return web.json_response(body=msgspec.json.encode(value), status=status)
