"""Bithumb, spot: the second generation of its API, whose messages are laid out as Upbit's.

Wire: https://apidocs.bithumb.com/reference (WebSocket v1: trade and orderbook, format DEFAULT), read 2026-11. Numbers
are JSON numbers, kept digit by digit.

===========  =========  ==================================================  ==========================
channel      stream     identity                                            time
===========  =========  ==================================================  ==========================
trades       trade      sequential_id                                       trade_timestamp, ms
book_events  orderbook  none: each message is a whole book of 30 levels     timestamp, µs
===========  =========  ==================================================  ==========================

- ``stream_type`` SNAPSHOT is the state at subscription: of trades the latest one, which may have been seen before.
- No quotes: the exchange has no stream of the best bid and ask. Nothing acknowledges a subscription.
- The first generation (``transaction``, ``orderbookdepth``) has no trade ids and is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final

from msgspec import Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import Control
from collectors.decode.upbit import Upbit, of_book, of_trade
from collectors.events import Event

_PLAIN: Final = (b"ping", b"pong")


class _Status(Struct, gc=False):
    status: str = ""
    resmsg: str = ""


_status = Json(_Status).decode


class Bithumb(Upbit):
    """The decoder of Bithumb."""

    exchange: ClassVar = "bithumb"
    version: ClassVar = "bithumb-1"
    documentation: ClassVar = "https://apidocs.bithumb.com/reference"
    handlers: ClassVar[Mapping[bytes, Callable[[bytes], list[Event]]]] = {
        b"trade": of_trade,
        b"orderbook": partial(of_book, ungrouped=(1, 0)),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        return [] if payload.lower() in _PLAIN else super()._events(payload)

    def _control(self, payload: bytes) -> Control | None:
        if payload.lower() in _PLAIN:
            return Control("other")
        found = super()._control(payload)
        if found == Control("other") and (answer := _status(payload)).status not in ("UP", "0000"):
            return Control("refused", detail=f"{answer.status}: {answer.resmsg}")
        return found


DECODER: Final = Bithumb()
