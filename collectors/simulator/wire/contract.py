"""A wire format as the exchange's server speaks it: what a venue's module here offers to listeners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar, Literal, NamedTuple

from msgspec import Struct, structs

from collectors.simulator.engine import BookState, DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market

Payload = str | bytes
"""A WebSocket message: text, or binary where it is bytes."""
Kind = Literal["trade", "bookTicker", "depth"]
"""What an event is; faults name it so whatever the exchange calls its streams."""


class Answer(NamedTuple):
    """What a client's message leads to: replies, streams that begin and end, whole books."""

    replies: tuple[Payload, ...] = ()
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    books: tuple[str, ...] = ()
    """Book streams whose whole book was asked for."""


class Session(Struct):
    """A connection as its wire format knows it. Frames are made once for all sessions of one ``flavour``."""

    flavour: str = ""
    streams: set[str] = set()
    greetings: tuple[Payload, ...] = ()
    subscribe: tuple[str, ...] = ()
    """Streams asked for by the URL itself."""


class Call(NamedTuple):
    """A REST request: ``base`` is the address it came to, ``snapshot`` the book's best levels, noted in the truth.

    ``history`` are the last trades of a market, the oldest first, with as many as the exchange still tells.
    """

    path: str
    query: Mapping[str, str]
    base: str
    now_ms: int
    markets: list[Market]
    snapshot: Callable[[str, int], BookState | None]
    history: Callable[[str], Sequence[TradeEvent]]


class Reply(NamedTuple):
    """A REST reply: JSON."""

    body: bytes
    status: int = 200


Handler = Callable[[Call], Reply]


class Outgoing:
    """One event on its way: what it is, and its payload by skew and flavour, made once."""

    __slots__ = ("_frames", "ids", "kind", "native_id", "render", "stream")

    def __init__(
        self, stream: str, kind: Kind, native_id: str, ids: tuple[int, int], render: Callable[[int, str], Payload]
    ) -> None:
        self.stream = stream
        self.kind: Kind = kind
        self.native_id = native_id
        self.ids = ids
        self.render = render
        self._frames: dict[tuple[int, str], bytes] = {}

    def frame(self, skew_ms: int, flavour: str) -> bytes:
        """The whole WebSocket frame, ready for the socket."""
        key = (skew_ms, flavour)
        if key not in self._frames:
            self._frames[key] = frame(self.render(skew_ms, flavour))
        return self._frames[key]


def frame(payload: Payload) -> bytes:
    """An unmasked final frame, text or binary (RFC 6455, section 5.2)."""
    body = payload.encode() if isinstance(payload, str) else payload
    opcode = b"\x81" if isinstance(payload, str) else b"\x82"
    size = len(body)
    if size < 126:
        return opcode + bytes((size,)) + body
    if size < 1 << 16:
        return opcode + b"\x7e" + size.to_bytes(2, "big") + body
    return opcode + b"\x7f" + size.to_bytes(8, "big") + body


class Wire(ABC):
    """One exchange's wire format. Knows no socket; ``book`` asks the engine for its best levels as they are now.

    Events are published one by one, in order: ``outgoing`` is called once for each, so that a format may number them.
    """

    exchange: ClassVar[str]
    """ccxt's id."""
    market_kind: ClassVar[Literal["spot", "swap"]] = "spot"
    """What is traded; a swap settles in its quote."""
    update_ids: ClassVar[Literal["changes", "messages", "none"]] = "changes"
    """What numbers a book's updates: the engine's changes, the messages (from 1), or nothing."""
    quote_ids: ClassVar[bool] = True
    """Whether a quote carries the id of the change that made it."""
    quote_times: ClassVar[bool] = True
    """Whether a quote carries its time."""
    paths: ClassVar[tuple[str, ...]]
    """Where WebSockets are accepted, as aiohttp's patterns."""
    digits: ClassVar[int | None] = None
    """Decimals of every number, None for those of its step."""
    depth: ClassVar[int]
    """Levels a side of a whole book: the exchange's horizon."""
    sends_snapshots: ClassVar[bool] = False
    """Whether a whole book opens a book subscription."""

    answers_late: ClassVar[bool] = False
    """Whether a whole book that was asked for comes behind updates that are newer."""

    def __init__(self) -> None:
        self.book: Callable[[str, int], BookState] = _no_book

    def market(self, market: Market) -> Market:
        """The market under this exchange's own name and with its decimals."""
        return structs.replace(market, native_id=self.native_id(market), wire_digits=self.digits)

    def outgoing(self, event: PublicEvent) -> Outgoing:
        """An engine's event on its way out."""
        return Outgoing(self.stream(event), kind(event), event.native_id, ids(event), partial(self.payload, event))

    def trade_id(self, number: int) -> str | None:
        """The engine's trade as the exchange names it; None where it sends no id."""
        return str(number)

    def connect(self, path: str, query: Mapping[str, str]) -> Session:
        """A new connection."""
        return Session(streams=set())

    def ping(self, now_ms: int) -> Payload | None:
        """The exchange's own keep-alive message, None where it sends WebSocket pings."""
        return None

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The whole book that opens a book subscription."""
        raise NotImplementedError(f"{self.exchange} serves whole books by REST")

    def refusal(self, status: int) -> bytes:
        """Body of a REST reply that is an error."""
        return b'{"error":"%d"}' % status

    @abstractmethod
    def native_id(self, market: Market) -> str:
        """What the exchange calls a market."""

    @abstractmethod
    def streams(self, markets: Iterable[Market]) -> set[str]:
        """Every stream a client may ask for."""

    @abstractmethod
    def stream(self, event: PublicEvent) -> str:
        """The stream an event belongs to."""

    def books(self, markets: Iterable[Market]) -> dict[str, str]:
        """Streams of books, with their market's native id."""
        return {self.stream(DepthEvent(m.native_id, 0, 0, 0, [], [])): m.native_id for m in markets}

    @abstractmethod
    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's message, its times moved by ``skew_ms``."""

    @abstractmethod
    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """What a client's message leads to; ``known`` are the streams there are."""

    @abstractmethod
    def routes(self) -> dict[tuple[str, str], Handler]:
        """REST handlers by method and path."""


def kind(event: PublicEvent) -> Kind:
    """What an event is."""
    match event:
        case TradeEvent():
            return "trade"
        case QuoteEvent():
            return "bookTicker"
        case DepthEvent():
            return "depth"


def ids(event: PublicEvent) -> tuple[int, int]:
    """First and last id of an event, as the engine counts."""
    match event:
        case TradeEvent():
            return event.trade_id, event.trade_id
        case QuoteEvent():
            return event.update_id, event.update_id
        case DepthEvent():
            return event.first_id, event.last_id


def json_pairs(levels: Iterable[Level], end: str = "") -> str:
    """Levels as JSON, ``[["1.5","2"],...]``; ``end`` stands behind each amount, as in ``,"0"``."""
    return "[" + ",".join([f'["{price}","{amount}"{end}]' for price, amount in levels]) + "]"


def iso(ms: int) -> str:
    """ms since 1970 as ``2026-11-23T10:00:00.123000Z``."""
    whole = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}000Z"


def _no_book(native_id: str, limit: int) -> BookState:
    raise RuntimeError(f"no engine was given to tell the book of {native_id} ({limit} levels)")
