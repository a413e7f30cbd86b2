"""How each exchange tells its past trades by REST, through ccxt. Data and pure functions; no socket.

An exchange is in here only where REST gives a trade the same id, time and digits as the stream does: the merge knows a
trade by them, so that one that an ingestor delivers late finds its backfilled copy. The raw reply is read (ccxt's
``info``): what ccxt makes of numbers goes through floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from collectors.errors import CryptopipError
from collectors.events import Trade


class HistoryError(CryptopipError):
    """A reply is not what the exchange documents."""


class History(Struct, frozen=True, kw_only=True):
    """One exchange's history.

    ``request`` gives what ccxt's ``fetch_trades`` shall pass on to get so many trades just below an id; ``page`` is the
    most of one reply, ``per_minute`` how many requests leave a good part of the exchange's limit to others.
    """

    page: int
    per_minute: float
    reach: str
    request: Callable[[int, int], dict[str, Any]]
    trade: Callable[[str, Mapping[str, Any]], Trade]
    keyless: str | None = None
    """A path for which ccxt wants a key and the exchange does not."""


def _text(raw: Mapping[str, Any], name: str) -> str:
    """A number as the exchange wrote it; raises HistoryError where it is no text, for then its digits may be lost."""
    value = raw.get(name)
    if not isinstance(value, str):
        raise HistoryError(f"the field {name!r} of a trade is {value!r}, expected a number as text: {dict(raw)}")
    return value


def _whole(raw: Mapping[str, Any], name: str) -> int:
    """A whole number, bare or as text; raises HistoryError."""
    value = raw.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise HistoryError(f"the field {name!r} of a trade is {value!r}, expected a whole number: {dict(raw)}")


def _binance(native_id: str, raw: Mapping[str, Any]) -> Trade:
    """``{"id":7,"price":"1.10","qty":"2.0","quoteQty":"2.2","time":1,"isBuyerMaker":true,"isBestMatch":true}``"""
    maker = raw.get("isBuyerMaker")
    if not isinstance(maker, bool):
        raise HistoryError(f"the field 'isBuyerMaker' of a trade is {maker!r}, expected true or false: {dict(raw)}")
    time = _whole(raw, "time") * 1_000_000
    return Trade(native_id, time, str(_whole(raw, "id")), not maker, _text(raw, "price"), _text(raw, "qty"))


def _okx(native_id: str, raw: Mapping[str, Any]) -> Trade:
    """``{"instId":"BTC-USDT","side":"sell","sz":"0.1","px":"1.10","tradeId":"7","ts":"1","source":"0"}``"""
    side = raw.get("side")
    if side not in ("buy", "sell"):
        raise HistoryError(f"the field 'side' of a trade is {side!r}, expected buy or sell: {dict(raw)}")
    time = _whole(raw, "ts") * 1_000_000
    return Trade(native_id, time, str(_whole(raw, "tradeId")), side == "buy", _text(raw, "px"), _text(raw, "sz"))


# https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints: weight 25 of 6,000 a minute
_BINANCE: Final = History(
    page=1000,
    per_minute=160,
    reach="every trade since the symbol was listed",
    request=lambda below, count: {
        "fetchTradesMethod": "publicGetHistoricalTrades",
        "fromId": max(below - count, 0),
    },
    trade=_binance,
    keyless="historicalTrades",
)
HISTORIES: Final[Mapping[str, History]] = {
    "binance": _BINANCE,
    "binanceus": _BINANCE,
    # https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-trades-history: 20 requests in 2 s
    "okx": History(
        page=100,
        per_minute=300,
        reach="three months",
        request=lambda below, count: {"method": "publicGetMarketHistoryTrades", "after": str(below)},
        trade=_okx,
    ),
}
