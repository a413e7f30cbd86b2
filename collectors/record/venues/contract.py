"""What the recorder must know of an exchange beside its decoder: ccxt's calls, the exchange's limits. Data, no code."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from collectors.events import Channel


class Watch(Struct, frozen=True, kw_only=True):
    """ccxt's call that subscribes to a channel: with a list of symbols, or where not ``is_many`` once for each.

    ``limit`` is the depth of a book where ccxt takes one, ``params`` what else ccxt passes on.
    """

    method: str
    is_many: bool = True
    limit: int | None = None
    params: dict[str, Any] = {}


class Venue(Struct, frozen=True, kw_only=True):
    """One exchange. Every figure leaves part of the exchange's own limit unused; its page is named beside it.

    ``named`` is, by ccxt's market type, the field of its markets that holds the name by which the exchange's frames
    call an instrument, where that is not ``id``. ``kinds`` are ccxt's market types that are recorded. ``config`` goes
    to ccxt's constructor. A text frame that begins with ``data_prefix`` (or one of them) is data for sure; None asks
    the decoder each time. ``acknowledges`` says whether the exchange answers once a request, once a symbol, or not at
    all. ``ping`` says what shows that a quiet connection is alive: WebSocket pings that the exchange answers, or the
    messages ccxt exchanges with it. ``lifetime_hours`` is when the exchange itself disconnects.
    """

    exchange: str
    watch: dict[Channel, Watch]
    named: dict[str, str] = {}
    kinds: frozenset[Literal["spot", "swap", "future", "option"]] = frozenset({"spot"})
    config: dict[str, Any] = {}
    data_prefix: str | tuple[str, ...] | None = None
    acknowledges: Literal["request", "symbol", "no"] = "request"
    ping: Literal["protocol", "messages"] = "protocol"
    symbols_per_connection: int = 50
    requests_per_second: float = 4.0
    snapshot_burst: int = 1
    snapshots_per_minute: float = 10.0
    lifetime_hours: float | None = None
