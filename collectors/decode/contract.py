"""What an exchange's decoder offers: bytes in, events out; no socket, clock, database or log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple

from msgspec import Struct

from collectors.decode.wire import WIRE_ERRORS, unpacked
from collectors.errors import UsageError
from collectors.events import BookEvent, Channel, Event, Level


class DecodeError(ValueError):
    """The frame is not what the exchange documents; the text says what was found. The only error a decoder raises."""


class UnknownExchangeError(UsageError):
    """No decoder is written for this exchange; the text lists those that are."""


class Identity(StrEnum):
    """What makes two events of a channel the same."""

    ID = "id"
    """An id of the exchange."""
    TUPLE = "tuple"
    """Nothing but their content, counted."""
    CHAIN = "chain"
    """First and last update id."""
    EPOCH = "epoch"
    """Nothing: the events of two connections are never mixed."""


class Proof(StrEnum):
    """What shows that the exchange's messages of a channel all arrived."""

    CONSECUTIVE = "consecutive"
    """Ids rise by one within an instrument; of book updates, ``first`` is the ``last`` before it plus one."""
    PREVIOUS = "previous"
    """Each update names the id of the one before it."""
    CONNECTION = "connection"
    """The frames of a connection are numbered by one: ``frame_number``."""
    CHECKSUM = "checksum"
    """Book events carry a checksum of the book after them."""
    NONE = "none"
    """Nothing but that the connection stood."""


class Stream(Struct, frozen=True, kw_only=True):
    """How an exchange offers one channel.

    ``name`` is the exchange's, for people. ``snapshot`` tells where whole books come from: ``socket`` (the first
    message of a subscription, and whenever the exchange starts anew), ``rest``, or ``always`` where each is a whole
    book. ``depth`` is the number of levels a side of a whole book, None for all there are.
    """

    name: str
    identity: Identity
    proof: Proof = Proof.NONE
    snapshot: Literal["socket", "rest", "always"] | None = None
    depth: int | None = None


class BookIds(NamedTuple):
    """The place of one book message in its chain; ids are None where the wire does not carry them."""

    native_id: str
    first: int | None
    last: int | None
    previous: int | None
    is_snapshot: bool = False


class Control(NamedTuple):
    """A frame that is no data.

    ``subscribed`` and ``unsubscribed``: the exchange acknowledges ``native_ids``, or where that is empty all that was
    asked for in one request. ``refused``: it will not send what was asked for; ``detail`` is its reason. ``other``:
    pings, pongs, heartbeats, greetings, replies to logins.
    """

    kind: Literal["subscribed", "unsubscribed", "refused", "other"]
    native_ids: tuple[str, ...] = ()
    detail: str = ""


class Decoder(ABC):
    """One exchange's wire format. Payloads are as journalled: text frames as UTF-8, binary ones as received."""

    exchange: ClassVar[str]
    """ccxt's id."""
    version: ClassVar[str]
    """Changes whenever the same frame would yield other events."""
    documentation: ClassVar[str]
    """The exchange's page that this follows."""
    checksum: ClassVar[tuple[Callable[[Sequence[Level], Sequence[Level]], int], int] | None] = None
    """Where book events carry one that can be computed: how, from the best bids and asks, and from how many a side."""
    streams: ClassVar[Mapping[Channel, Stream]]

    @property
    def identity(self) -> Mapping[Channel, Identity]:
        """What makes two events the same, by channel."""
        return {channel: stream.identity for channel, stream in self.streams.items()}

    @property
    def consecutive(self) -> frozenset[Channel]:
        """Channels of single events whose ids rise by one within an instrument, so that a jump is a loss."""
        return frozenset(
            channel
            for channel, stream in self.streams.items()
            if channel != "book_events" and stream.proof is Proof.CONSECUTIVE
        )

    def decode(self, payload: bytes) -> Sequence[Event]:
        """The events of a frame; none for replies, heartbeats and the like. Raises DecodeError."""
        try:
            events = self._usual(payload)
            return self._events(unpacked(payload)) if events is None else events
        except DecodeError:
            raise
        except WIRE_ERRORS as error:
            raise DecodeError(f"{error}: {payload[:80]!r}") from error

    def decode_snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The book of a REST reply. Raises DecodeError."""
        try:
            return self._snapshot(native_id, reply)
        except DecodeError:
            raise
        except WIRE_ERRORS as error:
            raise DecodeError(f"{error}: {reply[:80]!r}") from error

    def control(self, payload: bytes) -> Control | None:
        """What a frame says that is no data; None for data, and for what cannot be read. Raises nothing."""
        try:
            return self._control(unpacked(payload))
        except WIRE_ERRORS:
            return None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """Ids of the book messages in a frame; none for any other or an unreadable frame. Raises nothing.

        Slow as written here; exchanges whose books are checked as they are received do better.
        """
        try:
            return [
                BookIds(e.native_id, e.first_id, e.last_id, e.previous_id, e.kind == "snapshot")
                for e in self.decode(payload)
                if isinstance(e, BookEvent)
            ]
        except DecodeError:
            return ()

    def frame_number(self, payload: bytes) -> int | None:
        """The frame's number on its connection where the exchange counts them, else None. Raises nothing."""
        return None

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """Where to GET the whole book; ``rest`` is the base URL, None the exchange's own."""
        raise NotImplementedError(f"{self.exchange} sends whole books on the socket")

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        """The short way for frames laid out as nearly all are; None for any other. May raise any of WIRE_ERRORS."""
        return None

    @abstractmethod
    def _events(self, payload: bytes) -> Sequence[Event]:
        """A finished list (no generator) of a frame's events; may raise any of WIRE_ERRORS."""

    @abstractmethod
    def _control(self, payload: bytes) -> Control | None:
        """None for data; may raise any of WIRE_ERRORS."""

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The book of a REST reply; may raise any of WIRE_ERRORS."""
        raise NotImplementedError(f"{self.exchange} sends whole books on the socket")
