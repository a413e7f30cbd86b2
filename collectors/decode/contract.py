"""What an exchange's decoder offers: bytes in, events out; no socket, clock, database or log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

from collectors.errors import UsageError
from collectors.events import BookEvent, Channel, Event


class DecodeError(ValueError):
    """The frame is not what the exchange documents; the text says what was found. The only error a decoder raises."""


class UnknownExchangeError(UsageError):
    """No decoder is written for this exchange; the text lists those that are."""


class Identity(StrEnum):
    """What makes two events of a channel the same."""

    ID = "id"
    TUPLE = "tuple"
    CHAIN = "chain"
    EPOCH = "epoch"


class BookIds(NamedTuple):
    """The place of one book update in its chain; ``previous`` is None where the wire does not carry it."""

    native_id: str
    first: int
    last: int
    previous: int | None


class Decoder(Protocol):
    """One exchange's wire format. ``version`` changes whenever the same frame would yield other events."""

    @property
    def exchange(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def identity(self) -> Mapping[Channel, Identity]: ...

    @property
    def consecutive(self) -> frozenset[Channel]:
        """Channels of identity ID whose ids rise by one within an instrument, so that a jump is a loss."""

    def decode(self, payload: bytes) -> Iterable[Event]:
        """The events of a frame; none for replies, heartbeats and the like. Raises DecodeError."""

    def decode_snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The book of a REST reply. Raises DecodeError."""

    def channel_of(self, payload: bytes) -> Channel | None:
        """The channel of a frame of data, None for any other; looks no further than needed, raises nothing."""

    def book_ids(self, payload: bytes) -> BookIds | None:
        """Ids of a book update, None for any other or unreadable frame (the chain's next link shows it was missed)."""

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """Where to GET the whole book; ``rest`` is the base URL, None the exchange's own."""
