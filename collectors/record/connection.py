"""One connection's life: a socket, its journal, its watch over both. It ends with a reason, never silently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from aiohttp import WSMsgType
from msgspec import Struct, structs

from collectors.config import Endpoint
from collectors.decode import BookIds, Control, DecodeError, Decoder, Identity, Proof
from collectors.decode.wire import WIRE_ERRORS, unpacked
from collectors.events import BookEvent, Channel
from collectors.journal import Gap, JournalWriter, Reason, Subscribed
from collectors.record.book import BookChain
from collectors.record.checked import CheckedBook
from collectors.record.dial import dialler
from collectors.record.requests import Requests
from collectors.record.subscribe import REQUEST, ConnectionEndedError, subscribe
from collectors.record.tap import Tapped
from collectors.record.venues import Venue

_log = structlog.get_logger(__name__)
_CHECK_EVERY: Final = 64
"""Frames between two looks at the journal's fill: so many small ones are nothing."""
_UNSEEN_S: Final = 60.0
"""How long each frame is decoded to find symbols that are not acknowledged in another way; they count when loaded."""
_MESSAGES_STALL_S: Final = 45.0
"""Exchanges that exchange messages for pings do so every 5 to 30 s."""
_NO_PING_MISSES: Final = 1e9


class Timing(Struct, frozen=True):
    """Seconds: pings go out, a silent socket is given up, a socket must open, a subscription must be acknowledged,
    a successor must be synchronised and then goes beside the old one, shutdown may take.
    """

    ping: float = 3.0
    stall: float = 10.0
    dial: float = 30.0
    acknowledge: float = 15.0
    handover: float = 120.0
    overlap: float = 1.0
    farewell: float = 5.0


class Subscription(Struct, frozen=True):
    """What one connection records: ``instruments`` maps native ids to ccxt's symbols."""

    channel: Channel
    instruments: dict[str, str]


class Connection:
    """One epoch. ``live`` returns when it is over; its journal is closed then, or its loss was logged.

    ``want_snapshot`` is called with a native id whenever its book has no snapshot that bridges and none was asked for,
    ``over`` at the end. ``broken`` is set when only a new subscription mends it, ``is_ambiguous`` when a refusal named
    no symbol.
    """

    def __init__(
        self,
        *,
        venue: Venue,
        endpoint: Endpoint,
        markets_of: Any,
        decoder: Decoder,
        subscription: Subscription,
        journal: JournalWriter,
        want_snapshot: Callable[[Connection, str], None],
        timing: Timing,
        is_one_by_one: bool = False,
        over: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self.exchange = dialler(venue, endpoint, self, markets_of)
        self.venue = venue
        self.decoder = decoder
        self.subscription = subscription
        self.journal = journal
        self.want_snapshot = want_snapshot
        self.timing = timing
        stream = decoder.streams[subscription.channel]
        self._is_book = subscription.channel == "book_events"
        self._is_rest_book = self._is_book and stream.snapshot == "rest"
        self._proof = stream.proof
        self._is_unnumbered = stream.identity is Identity.EPOCH and stream.proof in (Proof.CHECKSUM, Proof.NONE)
        self._checked: dict[str, CheckedBook] = {}
        if stream.proof is Proof.CHECKSUM and decoder.checksum is not None:
            checksum, best = decoder.checksum
            self._checked = {
                native_id: CheckedBook(checksum, best=best, depth=stream.depth)
                for native_id in subscription.instruments
            }
        self.books = (
            {native_id: BookChain(stream.proof, stream.snapshot) for native_id in subscription.instruments}
            if self._is_book
            else {}
        )
        self.requests = Requests(subscription.instruments, each_symbol=venue.acknowledges == "symbol")
        self.broken = asyncio.Event()
        self.is_ambiguous = False
        self.is_over = False
        self._is_one_by_one = is_one_by_one
        self._over = over
        self._retired = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client: Any = None
        self._opened = asyncio.Event()
        self._begun = time.monotonic()
        self._asked_at: float | None = None  # when all was asked for
        self._asked_ns = 0
        self._number: int | None = None
        self._reply: Callable[[Any], None] = lambda _: None
        self._ping: Any = None
        prefixes = (venue.data_prefix,) if isinstance(venue.data_prefix, str) else venue.data_prefix or ()
        self._prefixes = tuple(prefix.encode() for prefix in prefixes)
        self._looks_at_all = True
        self._is_listening = False
        self._early: list[tuple[int, list[bytes]]] = []
        self._unchecked = 0  # frames since the last look at the journal's fill
        self._is_pausing = False
        self._full = asyncio.Event()
        self._log = _log.bind(channel=subscription.channel, epoch=journal.epoch)

    @property
    def is_subscribed(self) -> bool:
        """All was asked for, and all of it acknowledged or refused; where nothing is, the socket answers since."""
        if self._asked_at is None or self.is_over:
            return False
        return self.journal.alive > self._asked_ns if self.venue.acknowledges == "no" else not self.requests.pending

    @property
    def is_ready(self) -> bool:
        """Subscribed, and every book that was not refused is synchronised."""
        refused = self.requests.refused_ids
        return self.is_subscribed and all(book.is_bridged for one, book in self.books.items() if one not in refused)

    def retire(self) -> None:
        """Another connection took over: end, with everything received committed."""
        self._retired.set()

    async def live(self, stop: asyncio.Event) -> Reason:
        """Dial, subscribe, record until the socket, a task of ours, ``retire`` or ``stop`` ends it; the reason."""
        tasks: list[asyncio.Future[Any]] = [
            asyncio.create_task(self.journal.run(), name="commits"),
            asyncio.create_task(self._subscribe(), name="subscribe"),
            asyncio.create_task(self._receive(), name="receive"),
            asyncio.create_task(self._give_way(), name="give way"),
            asyncio.create_task(self._keep_alive(), name="keep alive"),
            asyncio.create_task(self._guard_disk(), name="guard disk"),
            asyncio.create_task(self._retired.wait(), name="retire"),
            asyncio.create_task(stop.wait(), name="stop"),
            self._failed,
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reason, detail = _why(done, stop, self._retired)
        except asyncio.CancelledError:
            reason, detail = "shutdown", "cancelled"
        is_planned = reason in ("shutdown", "handover")
        self.is_over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        (self._log.info if is_planned else self._log.warning)("connection over", reason=reason, detail=detail)
        try:
            await asyncio.gather(self._hang_up(), self._close_journal(reason, stop))
        finally:
            self._over(self)
        return reason

    # -- called by ccxt --

    def adopt(self, client: Any) -> None:
        """Take over ccxt's new client: it dials and sends, we receive, and hand it what is not data."""
        if self._client is not None:
            raise ConnectionEndedError(
                "crash", f"ccxt dials {client.url} beside {self._client.url}: one call must need one socket"
            )
        self._client = client
        self.journal.dialled(client.url.partition("?")[0])  # what is behind may be a token
        client.receive_loop = lambda: None
        client.create_connection = Tapped(client, self)
        self._reply = client.handle_text_or_binary_message
        if client.ping is None:
            client.keepAlive = 0  # ends ccxt's ping loop: ours pings at the protocol's level
        else:
            client.maxPingPongMisses = _NO_PING_MISSES  # any frame is a sign of life, which only we know of
            make = client.ping

            def ping(of: Any) -> Any:
                self._ping = make(of)
                return self._ping

            client.ping = ping
        send = client.send

        async def sent(message: Any) -> Any:
            asked = REQUEST.get()
            if asked and message is not self._ping:
                self.requests.sent(asked, str(message))
            return await send(message)

        client.send = sent

    def opened(self) -> None:
        """The socket is open, and ccxt can answer: look at what came with the handshake."""
        self._opened.set()
        self._is_listening = True
        for now, payloads in self._early:
            self.texts(now, payloads)
        self._early.clear()

    # -- receiving --

    def texts(self, now: int, payloads: list[bytes]) -> None:
        """Journal what one read of the socket gave, and only then look inside; called by the tap."""
        if not self._is_listening:
            self._early.append((now, payloads))
            return
        if self.is_over:
            return  # its close mark is written
        try:
            self.journal.append_frames((now, payloads))
            self._look(now, payloads)
        except Exception as error:  # noqa: BLE001  aiohttp would take it for its own and say nothing
            self._fail(error)
        self._unchecked += len(payloads)
        if self._unchecked >= _CHECK_EVERY:
            self._unchecked = 0
            if self.journal.is_full:
                self._hold_back()

    def binary(self, now: int, payload: bytes) -> None:
        """Compressed text is journalled unpacked: it packs better with its neighbours, and can be read."""
        try:
            payload = unpacked(payload)
        except WIRE_ERRORS as error:
            self._log.warning("a frame cannot be unpacked, it is kept as it came", error=str(error))
        self.texts(now, [payload])

    def _fail(self, error: Exception) -> None:
        """End the connection for what went wrong in a callback, or was found there."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _receive(self) -> None:
        """Signs of life and the end; what is data goes to ``texts`` and ``binary``."""
        await self._opened.wait()
        receive = self._client.connection.receive
        while True:
            message = await receive()
            if message.type in (WSMsgType.PING, WSMsgType.PONG):
                self.journal.heartbeat(time.time_ns())
            self._guarded(type(self._client).handle_message, self._client, message)
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                raise ConnectionEndedError(
                    "disconnect", f"socket closed: {message.type.name} {message.data} {message.extra}"
                )
            assert message.type in (WSMsgType.PING, WSMsgType.PONG), f"aiohttp kept data for itself: {message}"

    def _look(self, now: int, payloads: Sequence[bytes]) -> None:
        """Look inside what needs it: data frames only as long as something is learnt from them."""
        if self._looks_at_all:
            for data in payloads:
                self._inspect(now, data)
            return
        prefixes = self._prefixes
        for data in payloads:
            if not data.startswith(prefixes):
                self._inspect(now, data)

    def _learns(self) -> bool:
        """Whether data frames tell something: ids of books, frame numbers, symbols that are not acknowledged."""
        if not self._prefixes or self._proof is Proof.CONNECTION or self._is_unnumbered:
            return True
        if self._is_book and (self._proof in (Proof.CONSECUTIVE, Proof.PREVIOUS) or not self.is_ready):
            return True
        return self._is_unseen()

    def _is_unseen(self) -> bool:
        pending = self.venue.acknowledges == "no" and self.requests.pending
        return bool(pending) and time.monotonic() - self._begun < _UNSEEN_S

    def _inspect(self, now: int, raw: bytes) -> None:
        """Check chains and numbers; hand replies to ccxt."""
        if self._proof is Proof.CONNECTION and (number := self.decoder.frame_number(raw)) is not None:
            self._numbered(number, now)
        found = self.decoder.book_ids(raw) if self._is_book else ()
        for ids in found:
            self._book(ids, now)
        if self._is_unnumbered and (found or raw.startswith(self._prefixes) or self.decoder.control(raw) is None):
            self._read(raw, now)
        control = None if found or raw.startswith(self._prefixes) else self.decoder.control(raw)
        if control is not None:
            self._control(control, raw, now)
        elif self._is_unseen():
            self._see(raw, now)

    def _read(self, raw: bytes, now: int) -> None:
        """Read data that no number ties to what follows: a frame that cannot be read, or changes a book into another
        than the exchange has, ends what this connection is known to have recorded.
        """
        try:
            events = self.decoder.decode(raw)
        except DecodeError as error:
            self._log.warning("a frame cannot be read, and nothing tells what it was", error=str(error))
            self._lost(list(self.subscription.instruments), None, None, now)
            return
        for event in events:
            checked = self._checked.get(event.native_id)
            if checked is not None and isinstance(event, BookEvent) and (wrong := checked.apply(event)) is not None:
                self._log.warning("a checksum does not fit", symbol=event.native_id, **structs.asdict(wrong))
                self._lost([event.native_id], wrong.expected, wrong.found, now)

    def _lost(self, native_ids: list[str], expected: int | None, found: int | None, now: int) -> None:
        """Something is missing that ids do not show; a book needs a new subscription."""
        for native_id in native_ids:
            self.journal.mark(Gap(now, self.subscription.channel, native_id, expected, found))
        for native_id in native_ids:
            if native_id in self.books:
                self.books[native_id].is_bridged = False
                self.broken.set()

    def _control(self, control: Control, raw: bytes, now: int) -> None:
        named = [one for one in control.native_ids if one in self.subscription.instruments]
        if control.kind == "subscribed":
            self._acknowledged(self.requests.subscribed(named), now)
        elif control.kind == "refused":
            self._refused(named, control.detail or raw[:300].decode(errors="replace"))
            return  # ccxt would fail all that waits
        self._guarded(self._reply, raw.decode(errors="replace"))

    def _see(self, raw: bytes, now: int) -> None:
        """Where nothing is acknowledged, a symbol's first event shows that it is subscribed."""
        try:
            seen = {event.native_id for event in self.decoder.decode(raw)}
        except DecodeError:
            return  # the frame is journalled; the loader tells of it
        if new := [one for one in seen if one in self.requests.pending]:
            self._acknowledged(self.requests.subscribed(new), now)

    def _acknowledged(self, native_ids: list[str], now: int) -> None:
        if not native_ids:
            return
        self.journal.mark(Subscribed(now, self.subscription.channel, native_ids))
        self._looks_at_all = self._learns()
        self._log.info("subscribed", symbols=len(native_ids), pending=len(self.requests.pending))
        if self._is_rest_book:
            for native_id in native_ids:
                self.want_snapshot(self, native_id)

    def _refused(self, named: list[str], detail: str) -> None:
        symbols = self.requests.refused(named, detail)
        if symbols is None and self.requests.pending:
            self.is_ambiguous = True
            raise ConnectionEndedError("venue", f"the exchange refused, and named no symbol: {detail}")
        self._log.error("refused by the exchange: not recorded on this connection", symbols=symbols, detail=detail)
        if len(self.requests.refused_ids) == len(self.subscription.instruments):
            raise ConnectionEndedError("venue", f"the exchange refused every symbol: {detail}")

    def _guarded(self, handler: Callable[..., Any], *arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception:  # noqa: BLE001  ccxt's raise anything; the frame is in the journal, so go on
            self._log.exception("a handler failed on a reply", frame=str(arguments[-1])[:200])

    def _book(self, ids: BookIds, now: int) -> None:
        book = self.books.get(ids.native_id)
        if book is None:
            return
        had_begun, was_waiting, was_bridged = book.has_begun, book.is_waiting, book.is_bridged
        broken = book.update(ids)
        if broken is not None:
            self.journal.mark(Gap(now, "book_events", ids.native_id, broken.expected, broken.found))
            self._log.warning("gap", symbol=ids.native_id, expected=broken.expected, found=broken.found)
            if not self._is_rest_book:
                self.broken.set()
        is_news = not had_begun or was_bridged or was_waiting
        if self._is_rest_book and is_news and not book.is_bridged and not book.is_waiting:
            self.want_snapshot(self, ids.native_id)

    def _numbered(self, number: int, now: int) -> None:
        """A jump: nobody knows whose frames are missing, so it is a gap of all."""
        expected = number if self._number is None else self._number + 1
        self._number = number
        if number <= expected:
            return
        self._log.warning("gap in the connection's frames", expected=expected, found=number)
        self._lost(list(self.subscription.instruments), expected, number, now)
        self.broken.set()

    # -- tasks --

    async def _subscribe(self) -> None:
        def locally_refused(native_id: str, detail: str) -> None:
            self._refused([native_id], detail)

        def asked() -> None:
            self._asked_at, self._asked_ns = time.monotonic(), time.time_ns()

        watch = self.venue.watch[self.subscription.channel]
        await subscribe(
            self.exchange,
            watch,
            self.subscription.instruments,
            interval=1 / self.venue.requests_per_second,
            is_one_by_one=self._is_one_by_one,
            refused=locally_refused,
            asked=asked,
        )

    async def _keep_alive(self) -> None:
        """Ping, and tell a quiet market from a dead socket by what is received."""
        try:
            async with asyncio.timeout(self.timing.dial):
                await self._opened.wait()
        except TimeoutError:
            raise ConnectionEndedError("disconnect", f"no socket within {self.timing.dial:.0f} s") from None
        client, stall = self._client, self.timing.stall
        is_ours = self.venue.ping == "protocol" or client.ping is None
        heard = time.monotonic()
        alive = 0
        while True:
            if is_ours:
                try:
                    async with asyncio.timeout(self.timing.stall):
                        await client.connection.ping()
                except (OSError, TimeoutError) as error:
                    raise ConnectionEndedError("disconnect", f"cannot ping: {error!r}") from error
            if self.venue.ping == "messages":
                stall = max(self.timing.stall, _MESSAGES_STALL_S, 2.5 * (client.keepAlive or 0) / 1000)
            await asyncio.sleep(self.timing.ping)
            now = time.monotonic()
            if self.journal.alive != alive or self._is_pausing:  # while we do not listen, silence says nothing
                heard, alive = now, self.journal.alive
            elif now - heard > stall:
                raise ConnectionEndedError("stall", f"nothing received for {now - heard:.1f} s, not even pongs")
            self._await_answers(now)
            self._looks_at_all = self._learns()

    def _await_answers(self, now: float) -> None:
        """Give up on what the exchange leaves unanswered: on the connection where it answers nothing at all."""
        pending = self.requests.pending
        late = self._asked_at is not None and now - self._asked_at > self.timing.acknowledge
        if not late or not pending or self.venue.acknowledges == "no":
            return
        if len(pending) + len(self.requests.refused_ids) == len(self.subscription.instruments):
            raise ConnectionEndedError("venue", f"no reply to the subscription within {self.timing.acknowledge:.0f} s")
        self._refused(list(pending), f"not acknowledged within {self.timing.acknowledge:.0f} s")

    def _hold_back(self) -> None:
        self._is_pausing = True
        self._client.connection.hold_back()
        self._full.set()

    async def _give_way(self) -> None:
        """Read the socket again when the journal has room."""
        while True:
            await self._full.wait()
            self._log.warning("the journal's buffer is full: not reading the socket", fill=round(self.journal.fill, 2))
            await self.journal.wait_for_room()
            self._full.clear()
            self._is_pausing = False
            self._client.connection.go_on()
            self._log.info("reading the socket again", fill=round(self.journal.fill, 2))

    async def _guard_disk(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            if self.journal.failing_since is not None and self.journal.is_full:
                raise ConnectionEndedError("disk", "the journal cannot be written and its buffer is full")

    # -- the end --

    async def _hang_up(self) -> None:
        for close in (self._client.close if self._client is not None else None, self.exchange.close):
            if close is None:
                continue
            try:
                async with asyncio.timeout(self.timing.farewell):
                    await close()
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


def _why(done: set[asyncio.Future[Any]], stop: asyncio.Event, retired: asyncio.Event) -> tuple[Reason, str]:
    """The first cause among what ended; a task that failed by itself is a crash, with its traceback in the log."""
    for future in done:
        error = future.exception()
        if isinstance(error, ConnectionEndedError):
            return error.reason, error.detail
        if error is not None:
            _log.error("a task of the connection failed", exc_info=error)
            return "crash", repr(error)
    if stop.is_set():
        return "shutdown", "asked to stop"
    return ("handover", "replaced") if retired.is_set() else ("crash", "a task ended without being asked to")
