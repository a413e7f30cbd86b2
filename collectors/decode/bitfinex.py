"""Bitfinex.

Wire: https://docs.bitfinex.com/docs/ws-general (requests, flags) and https://docs.bitfinex.com/reference/ws-public-trades,
-books, read 2026-11. Frames are arrays of JSON numbers, times ms.

===========  ==================  ==========================================  ====================
channel      stream              identity                                    time
===========  ==================  ==========================================  ====================
trades       trades              ID                                          MTS
book_events  book P0 F0, 250     the connection; flag 65536 numbers frames   none on the wire
===========  ==================  ==========================================  ====================

A data frame names only its connection's channel number. The reply to the subscription tells what that means, so this
decoder remembers those of one connection: each connection has a ``fork`` of its own, which reads its frames from the
first on, or learns from ``control`` of its replies. A frame of an unknown channel is a DecodeError.

A trade comes twice: ``te`` when it is executed, ``tu`` once it is settled, both with the same id and numbers. ``te`` is
the event, because it comes first and a connection that ends between the two has it; ``tu`` yields nothing.
Flag 131072 adds ``cs`` frames: an update without levels that carries the checksum of the book before it in the stream.
The ticker is conflated, so L1 comes from the book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Annotated, Any, ClassVar, Final
from zlib import crc32

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json
from msgspec.json import format as laid_out

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, text_of
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Ms = Annotated[int, Meta(ge=0, le=2**43)]
_CONTROL: Final = (b'"hb"', b'"tu"')
_LISTS: Final = (b"[[", b"[]")
_BRACKET: Final = ord("[")
_NUMBER_BEGINS: Final = frozenset(bytes([one]) for one in b"-0123456789")
_DEPTH: Final = 250


class _Fill(Struct, array_like=True, gc=False):
    id: _Id
    mts: _Ms
    amount: Raw  # above zero: the taker bought
    price: Raw


class _Level(Struct, array_like=True, gc=False):
    price: Raw
    count: int  # of orders; 0 deletes the level
    amount: Raw  # above zero: a bid


class _TradeFrame(Struct, array_like=True, gc=False):
    channel: int
    kind: str
    trade: _Fill


class _TradesFrame(Struct, array_like=True, gc=False):
    channel: int
    trades: list[_Fill]


class _UpdateFrame(Struct, array_like=True, gc=False):
    channel: int
    level: _Level


class _SnapshotFrame(Struct, array_like=True, gc=False):
    channel: int
    levels: list[_Level]


class _ChecksumFrame(Struct, array_like=True, gc=False):
    channel: int
    kind: str
    checksum: int


class _Reply(Struct, gc=False):
    event: str
    channel: str | None = None
    chanId: _Id | UnsetType = UNSET  # noqa: N815 - the wire's own name
    symbol: str | None = None
    msg: Any = None
    version: Any = None


_trade = Json(_TradeFrame).decode
_trades = Json(_TradesFrame).decode
_update = Json(_UpdateFrame).decode
_snapshot = Json(_SnapshotFrame).decode
_checksum = Json(_ChecksumFrame).decode
_reply = Json(_Reply).decode


def _fill(symbol: str, m: _Fill) -> Trade:
    amount = text_of(m.amount)
    is_buy = amount[0] != "-"
    return Trade(symbol, m.mts * 1_000_000, str(m.id), is_buy, text_of(m.price), amount if is_buy else amount[1:])


def _level(m: _Level) -> tuple[bool, Level]:
    """Whether it is a bid, and the level."""
    price, amount = text_of(m.price), text_of(m.amount)
    is_bid = amount[0] != "-"
    if not m.count:
        return is_bid, (price, "0")
    return is_bid, (price, amount if is_bid else amount[1:])


def _update_of(symbol: str, m: _Level) -> BookEvent:
    is_bid, level = _level(m)
    bids, asks = ([level], []) if is_bid else ([], [level])
    return BookEvent(symbol, None, "update", None, None, None, bids, asks)


def _snapshot_of(symbol: str, levels: Sequence[_Level]) -> BookEvent:
    bids: list[Level] = []
    asks: list[Level] = []
    for one in levels:
        is_bid, level = _level(one)
        (bids if is_bid else asks).append(level)
    return BookEvent(symbol, None, "snapshot", None, None, None, bids, asks)


def _head(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """The channel's number, what follows it, and the frame, all without white space. Raises ValueError or JsonError."""
    found = _numbered(payload)
    if found is None:
        payload = laid_out(payload, indent=-1)
        found = _numbered(payload)
        if found is None:
            raise DecodeError(f"neither data nor reply: {payload[:80]!r}")
    return *found, payload


def _numbered(payload: bytes) -> tuple[bytes, bytes] | None:
    """Of a frame without white space: the channel's number; ``[[``, ``[]``, ``[`` or a text in quotes."""
    at = payload.find(b",", 1, 20)
    number, follows = payload[1:at], payload[at + 1 : at + 3]
    if not number.isdigit() or payload[0] != _BRACKET:
        return None
    if follows in _LISTS:
        return number, follows
    if follows[:1] == b"[":
        return (number, b"[") if follows[1:] in _NUMBER_BEGINS else None
    end = payload.find(b'"', at + 2, at + 12)
    return (number, payload[at + 1 : end + 1]) if follows[:1] == b'"' and end > 0 else None


def book_checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """CRC32, signed, of the 25 best levels a side, best first, bid and ask in turn, amounts of asks negative."""
    of_asks = [(price, f"-{amount}") for price, amount in asks[:25]]
    pairs = chain.from_iterable(zip_longest(bids[:25], of_asks))
    number = crc32(":".join(f"{pair[0]}:{pair[1]}" for pair in pairs if pair).encode())
    return number - 2**32 if number >= 2**31 else number


class Bitfinex(Decoder):
    """The decoder of one Bitfinex connection."""

    exchange: ClassVar = "bitfinex"
    version: ClassVar = "bitfinex-1"
    documentation: ClassVar = "https://docs.bitfinex.com/docs/ws-general"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades", identity=Identity.ID, proof=Proof.CONNECTION),
        "book_events": Stream(
            name="book P0 F0", identity=Identity.EPOCH, proof=Proof.CONNECTION, snapshot="socket", depth=_DEPTH
        ),
    }

    def __init__(self) -> None:
        self.channels: dict[bytes, tuple[str, str]] = {}
        self._beginnings: dict[bytes, str] = {}

    def fork(self) -> Bitfinex:
        """A decoder of another connection, which knows no channels yet."""
        return type(self)()

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        at = payload.find(b",", 1, 20)
        symbol = self._beginnings.get(payload[: at + 5])
        if symbol is not None:
            return (_fill(symbol, _trade(payload).trade),)
        symbol = self._beginnings.get(payload[: at + 2])
        if symbol is not None and payload[at + 2 : at + 3] in _NUMBER_BEGINS:
            return (_update_of(symbol, _update(payload).level),)
        return None

    def _know_beginnings(self) -> None:
        ends = {"trades": b',"te"', "book": b",["}
        self._beginnings = {
            b"[" + number + ends[channel]: symbol
            for number, (channel, symbol) in self.channels.items()
            if channel in ends
        }

    def _learn(self, payload: bytes) -> Control:
        """What a reply says; a subscription is remembered, a greeting forgets those of an earlier connection."""
        m = _reply(payload)
        symbols = () if m.symbol is None else (m.symbol,)
        match m.event:
            case "subscribed" if m.channel is not None and m.symbol is not None and m.chanId is not UNSET:
                self.channels[b"%d" % m.chanId] = (m.channel, m.symbol)
                self._know_beginnings()
                return Control("subscribed", symbols)
            case "unsubscribed" if m.chanId is not UNSET:
                channel = self.channels.pop(b"%d" % m.chanId, None)
                self._know_beginnings()
                return Control("unsubscribed", () if channel is None else (channel[1],))
            case "error":
                return Control("refused", symbols, str(m.msg))
            case "info" if m.version is not None:
                self.channels.clear()
                self._know_beginnings()
        return Control("other")

    def _events(self, payload: bytes) -> Sequence[Event]:
        if payload.startswith(b"{"):
            self._learn(payload)
            return ()
        number, follows, payload = _head(payload)
        if follows in _CONTROL:
            return ()
        known = self.channels.get(number)
        if known is None:
            raise DecodeError(f"unknown channel {number.decode()}: the reply to its subscription was not seen")
        channel, symbol = known
        if channel == "trades":
            if follows == b'"te"':
                return (_fill(symbol, _trade(payload).trade),)
            if follows in _LISTS:
                return [_fill(symbol, one) for one in reversed(_trades(payload).trades)]
        elif channel == "book":
            return (self._book(symbol, follows, payload),)
        raise DecodeError(f"{channel!r} with {follows!r}: {payload[:80]!r}")

    def _book(self, symbol: str, follows: bytes, payload: bytes) -> BookEvent:
        if follows == b"[":
            return _update_of(symbol, _update(payload).level)
        if follows == b'"cs"':
            return BookEvent(symbol, None, "update", None, None, None, [], [], str(_checksum(payload).checksum))
        return _snapshot_of(symbol, _snapshot(payload).levels)

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith(b"{"):
            return self._learn(payload)
        return Control("other") if _head(payload)[1] in _CONTROL else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """Whose book; this exchange numbers frames, not books."""
        try:
            number, follows, _ = _head(payload)
        except WIRE_ERRORS:
            return ()
        channel, symbol = self.channels.get(number, (None, ""))
        if channel != "book" or follows in _CONTROL:
            return ()
        return (BookIds(symbol, None, None, None, follows in _LISTS),)

    def frame_number(self, payload: bytes) -> int | None:
        """The last element, where flag 65536 is set; it begins with 1 on each connection and counts heartbeats too."""
        rest, _, last = payload.rpartition(b",")
        if not last[:-1].isdigit() or last[-1:] != b"]" or len(last) > 19:
            return None
        if rest.endswith((b"]", b'"hb"')) or b',"cs",' in rest:
            return int(last[:-1])
        return None


DECODER: Final = Bitfinex()
