"""Deribit: perpetuals, futures, options and spot.

Wire: https://docs.deribit.com/ (JSON-RPC over WebSocket; subscriptions book, trades, quote and ticker), read 2026-11.
Times are ms, numbers JSON numbers. Intervals of 100 ms: those called raw need a login.

============  ===========================  =====================================================  =====================
channel       stream                       identity                                               time
============  ===========================  =====================================================  =====================
trades        trades.<instrument>.100ms    trade_id (trade_seq counts an instrument's trades,     timestamp, of the
                                           but is not the id that orders and the REST API name)   trade
quotes        quote.<instrument>           content                                                timestamp
book_events   book.<instrument>.100ms      change_id, where prev_change_id is the change_id       timestamp
                                           before it; the first message is the whole book
derivatives   ticker.<instrument>.100ms    content                                                timestamp
liquidations  trades.<instrument>.100ms    content, with the trade's id: of a trade marked M, T   timestamp
                                           or MT the maker, the taker or both were liquidated
============  ===========================  =====================================================  =====================

Amounts are as the exchange counts them: USD of inverse perpetuals and futures, else units of the base. Funding is
continuous: funding_rate is current_funding, the rate of 8 hours at this moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, field
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, text_of
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Liquidation, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_DATA: Final = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'
_AT: Final = len(_DATA)
_NULL: Final = Raw(b"null")


class _Trade(Struct, gc=False):
    instrument_name: str
    trade_id: str
    timestamp: int
    price: Raw
    amount: Raw
    direction: Literal["buy", "sell"]  # of the taker
    liquidation: Literal["M", "T", "MT"] | None = None


class _Quote(Struct, gc=False):
    instrument_name: str
    timestamp: int
    best_bid_price: Raw
    best_bid_amount: Raw
    best_ask_price: Raw
    best_ask_amount: Raw


class _Book(Struct, gc=False):
    type: Literal["snapshot", "change"]
    instrument_name: str
    timestamp: int
    change_id: _Id
    bids: Raw
    asks: Raw
    prev_change_id: _Id | None = None


class _Ids(Struct, gc=False):
    type: Literal["snapshot", "change"]
    instrument_name: str
    change_id: _Id
    prev_change_id: _Id | None = None


class _Ticker(Struct, gc=False):
    instrument_name: str
    timestamp: int
    mark_price: Raw = _NULL
    index_price: Raw = _NULL
    open_interest: Raw = _NULL
    current_funding: Raw = _NULL


class _Trades(Struct, gc=False):
    data: list[_Trade]


class _TradesFrame(Struct, gc=False):
    params: _Trades


class _QuoteParams(Struct, gc=False):
    data: _Quote


class _QuoteFrame(Struct, gc=False):
    params: _QuoteParams


class _BookParams(Struct, gc=False):
    data: _Book


class _BookFrame(Struct, gc=False):
    params: _BookParams


class _IdsParams(Struct, gc=False):
    data: _Ids


class _IdsFrame(Struct, gc=False):
    params: _IdsParams


class _TickerParams(Struct, gc=False):
    data: _Ticker


class _TickerFrame(Struct, gc=False):
    params: _TickerParams


class _Params(Struct, gc=False):
    channel: str = ""


class _Reason(Struct, gc=False):
    reason: str = ""


class _Error(Struct, gc=False):
    message: str = ""
    code: int = 0
    data: _Reason = field(default_factory=_Reason)


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    method: str = ""
    params: _Params = field(default_factory=_Params)
    result: Any = UNSET
    error: _Error | None = None


_trades = Json(_TradesFrame).decode
_quote = Json(_QuoteFrame).decode
_book = Json(_BookFrame).decode
_ids = Json(_IdsFrame).decode
_ticker = Json(_TickerFrame).decode
_probe = Json(_Probe).decode
_side = Json(list[tuple[Literal["new", "change", "delete"], float, float]]).decode


def _levels(raw: Raw) -> list[Level]:
    """``[["new",61000.5,10.0],["delete",60999,0]]``: the floats only prove its shape, the texts are what was sent."""
    _side(raw)
    text = "".join(bytes(raw).decode().split())
    if text == "[]":
        return []
    parts = text[2:-2].replace("],[", ",").split(",")
    return list(zip(parts[1::3], parts[2::3], strict=True))


def _text(raw: Raw) -> str | None:
    return None if raw == _NULL else text_of(raw)


def _best(price: Raw, amount: Raw) -> tuple[str | None, str | None]:
    """A side of a quote; an empty one has null or 0 for its price."""
    text = _text(price)
    return (text, text_of(amount)) if text is not None and text.strip("0.") else (None, None)


def _of_trades(payload: bytes) -> list[Event]:
    events: list[Event] = []
    for m in _trades(payload).params.data:
        time, price, amount, bought = m.timestamp * 1_000_000, text_of(m.price), text_of(m.amount), m.direction == "buy"
        events.append(Trade(m.instrument_name, time, m.trade_id, bought, price, amount))
        for who in m.liquidation or "":
            is_buy = bought if who == "T" else not bought
            events.append(Liquidation(m.instrument_name, time, m.trade_id, is_buy, price, amount))
    return events


def _of_quote(payload: bytes) -> list[Event]:
    m = _quote(payload).params.data
    bid, ask = _best(m.best_bid_price, m.best_bid_amount), _best(m.best_ask_price, m.best_ask_amount)
    return [Quote(m.instrument_name, m.timestamp * 1_000_000, None, *bid, *ask)]


def _of_book(payload: bytes) -> list[Event]:
    m = _book(payload).params.data
    kind: Literal["snapshot", "update"] = "snapshot" if m.type == "snapshot" else "update"
    if kind == "update" and m.prev_change_id is None:
        raise DecodeError("a change of a book without prev_change_id")
    time = m.timestamp * 1_000_000
    sides = _levels(m.bids), _levels(m.asks)
    return [BookEvent(m.instrument_name, time, kind, None, m.change_id, m.prev_change_id, *sides)]


def _of_ticker(payload: bytes) -> list[Event]:
    m = _ticker(payload).params.data
    return [
        Derivative(
            native_id=m.instrument_name,
            time=m.timestamp * 1_000_000,
            funding_rate=_text(m.current_funding),
            open_interest=_text(m.open_interest),
            mark_price=_text(m.mark_price),
            index_price=_text(m.index_price),
        )
    ]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"trades": _of_trades,
    b"quote": _of_quote,
    b"book": _of_book,
    b"ticker": _of_ticker,
}


class Deribit(Decoder):
    """The decoder of Deribit."""

    exchange: ClassVar = "deribit"
    version: ClassVar = "deribit-1"
    documentation: ClassVar = "https://docs.deribit.com/subscriptions/orderbook/bookinstrument_nameinterval"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades.<instrument>.100ms", identity=Identity.ID),
        "quotes": Stream(name="quote.<instrument>", identity=Identity.TUPLE),
        "book_events": Stream(
            name="book.<instrument>.100ms", identity=Identity.CHAIN, proof=Proof.PREVIOUS, snapshot="socket"
        ),
        "derivatives": Stream(name="ticker.<instrument>.100ms", identity=Identity.TUPLE),
        "liquidations": Stream(name="trades.<instrument>.100ms", identity=Identity.TUPLE),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(payload[_AT : payload.find(b".", _AT, _AT + 16)])
        return None if known is None or not payload.startswith(_DATA) else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        if self._control(payload) is not None:
            return ()
        channel = _probe(payload).params.channel
        known = _HANDLERS.get(channel.partition(".")[0].encode())
        if known is None:
            raise DecodeError(f"unknown channel {channel!r}: {payload[:80]!r}")
        return known(payload)

    def _control(self, payload: bytes) -> Control | None:
        """``{"jsonrpc":"2.0","id":1,"result":["book.BTC-PERPETUAL.100ms"]}``: those it will send."""
        if payload.startswith(_DATA):
            return None
        probe = _probe(payload)
        if probe.error is not None:
            told = f"{probe.error.code} {probe.error.message}: {probe.error.data.reason}"
            return Control("refused", detail=told.removesuffix(": "))
        if probe.method == "heartbeat":
            return Control("other")
        if probe.method or probe.result is UNSET:
            return None
        asked = probe.result if isinstance(probe.result, list) else []
        names = [one.split(".")[1] for one in asked if isinstance(one, str) and "." in one]
        return Control("subscribed", tuple(dict.fromkeys(names))) if names else Control("other")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``change_id`` and ``prev_change_id``, levels passed over."""
        try:
            is_laid_out = payload.startswith(_DATA)
            if not (
                payload.startswith(b"book.", _AT) if is_laid_out else _probe(payload).params.channel.startswith("book.")
            ):
                return ()
            m = _ids(payload).params.data
        except WIRE_ERRORS:
            return ()
        is_whole = m.type == "snapshot"
        return (BookIds(m.instrument_name, None, m.change_id, m.prev_change_id, is_whole),)


DECODER: Final = Deribit()
