"""Gemini, spot and perpetuals.

Wire: https://docs.gemini.com/websocket-api/#multi-market-data (version 1, several symbols a connection), read 2026-11.

===========  ======================================  ============================================  ===========
channel      stream                                  identity                                      time
===========  ======================================  ============================================  ===========
trades       multimarketdata?trades=true             tid; socket_sequence numbers the frames       timestampms
book_events  multimarketdata?bids=true&offers=true   the connection; socket_sequence, from 0       timestampms
===========  ======================================  ============================================  ===========

The whole book comes first, as changes with the reason ``initial``. Version 2 (l2_updates) has no sequence, so it is not
used. ``top_of_book`` tells changes of a side, not the best bid and ask, so L1 comes from the book. Symbols are in upper
case on the wire, in lower case everywhere else at the exchange, and here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Ms = Annotated[int, Meta(ge=0, le=2**43)]
_SEQUENCE: Final = re.compile(rb'"socket_sequence":\s*(\d{1,18})\b')


class _Change(Struct, tag_field="type", tag="change", gc=False):
    symbol: str
    side: Literal["bid", "ask"]
    price: str
    remaining: str
    reason: str


class _Fill(Struct, tag_field="type", tag="trade", gc=False):
    symbol: str
    tid: _Id
    price: str
    amount: str
    makerSide: Literal["bid", "ask", "auction"]  # noqa: N815 - the wire's own name


class _ChangeHead(Struct, tag_field="type", tag="change", gc=False):
    symbol: str
    reason: str


class _FillHead(Struct, tag_field="type", tag="trade", gc=False):
    pass


class _Update(Struct, tag_field="type", tag="update", gc=False):
    events: list[_Change | _Fill]
    timestampms: _Ms | None = None


class _UpdateHead(Struct, tag_field="type", tag="update", gc=False):
    events: list[_ChangeHead | _FillHead]


class _Heartbeat(Struct, tag_field="type", tag="heartbeat", gc=False):
    pass


class _Probe(Struct, gc=False):
    """What tells a refusal from data."""

    type: str | None = None
    result: str | None = None
    reason: Any = None
    message: Any = None


_frame = Json(_Update | _Heartbeat).decode
_head = Json(_UpdateHead).decode
_probe = Json(_Probe).decode


def _fill(m: _Fill, time: int | None) -> Trade:
    if time is None:
        raise ValueError("a trade without timestampms")
    is_buy = None if m.makerSide == "auction" else m.makerSide == "ask"
    return Trade(m.symbol.lower(), time, str(m.tid), is_buy, m.price, m.amount)


def _is_refusal(payload: bytes) -> bool:
    probe = _probe(payload)
    return probe.type is None and probe.result == "error"


class Gemini(Decoder):
    """The decoder of Gemini."""

    exchange: ClassVar = "gemini"
    version: ClassVar = "gemini-1"
    documentation: ClassVar = "https://docs.gemini.com/websocket-api/#multi-market-data"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="multimarketdata (trades)", identity=Identity.ID, proof=Proof.CONNECTION),
        "book_events": Stream(
            name="multimarketdata (bids, offers)",
            identity=Identity.EPOCH,
            proof=Proof.CONNECTION,
            snapshot="socket",
        ),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        """Trades first, then one book event a symbol, its levels in their order on the wire."""
        if payload.startswith(b'{"result"') and _is_refusal(payload):
            return ()
        m = _frame(payload)
        if isinstance(m, _Heartbeat):
            return ()
        time = None if m.timestampms is None else m.timestampms * 1_000_000
        events: list[Event] = []
        books: dict[str, BookEvent] = {}
        for one in m.events:
            if isinstance(one, _Fill):
                events.append(_fill(one, time))
                continue
            book = books.get(one.symbol)
            if book is None:
                books[one.symbol] = book = _empty(one, time)
            level: Level = (one.price, one.remaining)
            (book.bids if one.side == "bid" else book.asks).append(level)
        events.extend(books.values())
        return events

    def _control(self, payload: bytes) -> Control | None:
        probe = _probe(payload)
        if probe.type is None and probe.result == "error":
            return Control("refused", (), ": ".join(str(text) for text in (probe.reason, probe.message) if text))
        return Control("other") if probe.type == "heartbeat" else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """Whose books; this exchange numbers frames, not books."""
        try:
            m = _head(payload)
        except WIRE_ERRORS:
            return ()
        firsts: dict[str, str] = {}
        for one in m.events:
            if isinstance(one, _ChangeHead):
                firsts.setdefault(one.symbol, one.reason)
        return [BookIds(symbol.lower(), None, None, None, reason == "initial") for symbol, reason in firsts.items()]

    def frame_number(self, payload: bytes) -> int | None:
        """``socket_sequence``, of data and heartbeats alike."""
        found = _SEQUENCE.search(payload)
        return None if found is None else int(found[1])


def _empty(m: _Change, time: int | None) -> BookEvent:
    kind: Literal["snapshot", "update"] = "snapshot" if m.reason == "initial" else "update"
    return BookEvent(m.symbol.lower(), time, kind, None, None, None, [], [])


DECODER: Final = Gemini()
