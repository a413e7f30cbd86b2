"""What makes two events the same, chosen by exchange: an id; content and number where the wire carries no id; or, of
events that belong to their epoch alone, who received them on which connection, when, and as the how manieth.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from msgspec.structs import replace

from collectors.decode import Identity, Proof, UnknownExchangeError, decoder
from collectors.events import Channel
from collectors.sync.channels import (
    BOOK_EVENTS,
    DERIVATIVES,
    LIQUIDATIONS,
    MICROSECONDS,
    QUOTES,
    SPECS,
    TRADES,
    ChannelSpec,
)
from collectors.sync.errors import SourceError
from collectors.sync.tuples import same_tuple


def _by_tuple(spec: ChannelSpec, content: tuple[str, ...], nullable: tuple[str, ...]) -> ChannelSpec:
    """The same channel where an event is known by its content, and by its number among equal ones."""
    columns = (*spec.columns, ("ordinal", "smallint"))
    key = ("instrument_id", "time", *content)
    return replace(
        spec,
        columns=columns,
        identity=", ".join(f"s.{name}" for name in (*key, "ordinal")),
        same=same_tuple(("time", "ordinal", *content), nullable),
        missing_id="false",
        payload=tuple(name for name in spec.payload if name not in content),
        event_id=f"concat_ws('|', {', '.join(f's.{name}' for name in (*key[1:], 'ordinal'))})",
        slack=timedelta(0),
        is_compared=False,
        numbered=key,
    )


_QUOTE = ("update_id", "bid_price", "bid_amount", "ask_price", "ask_amount")
_DERIVATIVE = ("funding_rate", "funding_time", "open_interest", "mark_price", "index_price")
BY_TUPLE: dict[Channel, ChannelSpec] = {
    "trades": _by_tuple(TRADES, ("is_buy", "trade_id", "price", "amount"), ("is_buy", "trade_id")),
    # quotes|instrument|µs|update id|bid price|bid amount|ask price|ask amount
    "quotes": replace(
        _by_tuple(QUOTES, _QUOTE, _QUOTE),
        text=(
            f"concat('quotes|', t.instrument_id, '|', {MICROSECONDS}, '|', t.update_id, '|', t.bid_price, '|',"
            " t.bid_amount, '|', t.ask_price, '|', t.ask_amount)"
        ),
    ),
    "derivatives": _by_tuple(DERIVATIVES, _DERIVATIVE, _DERIVATIVE),
    "liquidations": _by_tuple(
        LIQUIDATIONS, ("is_buy", "liquidation_id", "price", "amount"), ("is_buy", "liquidation_id")
    ),
}


def _by_epoch(spec: ChannelSpec, payload: tuple[str, ...], text: str) -> ChannelSpec:
    """The same channel where the events of two connections are never mixed; all are kept, and one connection leads."""
    key = ("epoch", "time", "received_at", "ordinal")
    return replace(
        spec,
        columns=(*spec.columns, ("ordinal", "smallint")),
        identity=", ".join(f"s.{name}" for name in ("instrument_id", *key)),
        same=same_tuple(("ingestor", *key), ()),
        missing_id="false",
        payload=payload,
        event_id=f"concat_ws('|', {', '.join(f's.{name}' for name in key)})",
        # The text of one that is known by content, its connection behind it
        text=f"concat({text}, '|', t.ingestor, '|', t.epoch)",
        slack=timedelta(0),
        numbered=("instrument_id", "received_at"),
    )


BY_EPOCH: dict[Channel, ChannelSpec] = {
    "quotes": _by_epoch(QUOTES, _QUOTE, BY_TUPLE["quotes"].text),
    # book_events|...|µs: the book has no time among its own fields
    "book_events": _by_epoch(BOOK_EVENTS, BOOK_EVENTS.payload, f"{BOOK_EVENTS.text}, '|', {MICROSECONDS}"),
    "derivatives": _by_epoch(DERIVATIVES, _DERIVATIVE, DERIVATIVES.text),
}


# The message of a quiet minute repeats the last id (OKX): it is another than the update that had this id first.
BY_PREVIOUS = replace(
    BOOK_EVENTS,
    identity=f"{BOOK_EVENTS.identity}, s.previous_id",
    same=f"{BOOK_EVENTS.same} AND coalesce(t.previous_id, -1) = coalesce(s.previous_id, -1)",
)


@cache
def specs(exchange: str) -> tuple[ChannelSpec, ...]:
    """The channels as this exchange's decoder declares them; raises SourceError where it is not known."""
    try:
        streams = decoder(exchange).streams
    except UnknownExchangeError as error:
        raise SourceError(f"{error}: what it loaded cannot be merged by this version") from error

    def chosen(spec: ChannelSpec) -> ChannelSpec:
        stream = streams.get(spec.name)
        if stream is not None and stream.identity is Identity.TUPLE:
            return BY_TUPLE[spec.name]
        if stream is not None and stream.identity is Identity.EPOCH:
            return BY_EPOCH[spec.name]
        if stream is not None and stream.proof is Proof.CONSECUTIVE and spec.is_compared:
            return replace(spec, is_compared=False)
        return BY_PREVIOUS if spec is BOOK_EVENTS and stream is not None and stream.proof is Proof.PREVIOUS else spec

    return tuple(map(chosen, SPECS))
