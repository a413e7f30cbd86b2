"""Compares the universe with the exchanges' own market lists, read through ccxt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import ccxt.async_support

from collectors.config import Endpoint
from collectors.errors import UsageError
from collectors.record.venues import native_id, venue
from collectors.universe import Instrument, Universe


class Answer(NamedTuple):
    """What came of asking: how the universe differs from market lists, and which exchanges gave none, a text each."""

    problems: list[str]
    silent: list[str]


async def ask_exchanges(universe: Universe, endpoints: Mapping[str, Endpoint]) -> Answer:
    """Compare the universe's instruments of these exchanges with their market lists.

    A silent exchange keeps no other from answering. Raises UsageError for an exchange that ccxt does not know.
    """
    answer = Answer([], [])
    for exchange, endpoint in sorted(endpoints.items()):
        instruments = universe.of(exchange)
        if not instruments:
            continue
        try:
            answer.problems.extend(online_problems(instruments, await _markets(exchange, instruments, endpoint)))
        except _SilentError as error:
            answer.silent.append(str(error))
    return answer


class _SilentError(Exception):
    """An exchange gave no market list; the text says which, where, and what was found."""


async def _markets(exchange: str, instruments: list[Instrument], endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    maker = getattr(ccxt.async_support, exchange, None)
    if maker is None:
        raise UsageError(f"ccxt {ccxt.__version__} has no exchange {exchange!r}: validate without --online")
    # Binance keeps spot and derivatives on different hosts: ask only for what the file speaks of.
    types = ["spot"] if {i.kind for i in instruments} == {"spot"} else None
    client = maker({"options": {"fetchMarkets": {"types": types}}} if types else {})
    if endpoint.rest is not None:
        client.urls["api"] = moved(client.urls["api"], endpoint.rest)
    try:
        return dict(await client.load_markets())
    except ccxt.BaseError as error:
        where = endpoint.rest or "its own address"
        raise _SilentError(
            f"{exchange} at {where} did not give its market list ({error}): check the network, or validate offline"
        ) from error
    finally:
        await client.close()


def moved(urls: Any, rest: str) -> Any:
    """ccxt's addresses, in dicts or not, with the scheme and host of each replaced by ``rest``; paths stay."""
    if isinstance(urls, dict):
        return {name: moved(url, rest) for name, url in urls.items()}
    return rest.rstrip("/") + urlsplit(urls).path if isinstance(urls, str) else urls


def online_problems(instruments: Iterable[Instrument], markets: dict[str, dict[str, Any]]) -> Iterator[str]:
    """How living entries differ from an exchange's market list (ccxt's markets by symbol, its precision in ticks)."""
    for instrument in instruments:
        if instrument.delisted_at is not None:
            continue
        label = f"id {instrument.id} ({instrument.exchange} {instrument.symbol})"
        market = markets.get(instrument.symbol)
        if market is None:
            near = difflib.get_close_matches(instrument.symbol, markets, n=3)
            advice = f"did you mean {', '.join(near)}?" if near else "correct it, or set delisted_at"
            yield f"{label}: the exchange lists no such symbol: {advice}"
            continue
        expected = {
            "native_id": native_id(venue(instrument.exchange), market),
            "kind": market["type"],
            "base": market["base"],
            "quote": market["quote"],
            "settle": market.get("settle"),
        }
        for name, theirs in expected.items():
            ours = getattr(instrument, name)
            if ours != theirs:
                yield f"{label}: `{name}` is {ours!r} here and {theirs!r} at the exchange: correct it"
        for name, key in (("price_tick", "price"), ("amount_step", "amount")):
            ours, theirs = getattr(instrument, name), (market.get("precision") or {}).get(key)
            if ours is not None and theirs is not None and ours != Decimal(str(theirs)):
                yield f"{label}: `{name}` is {ours} here and {Decimal(str(theirs)):f} at the exchange: correct it"
        if market.get("active") is False:
            yield f"{label}: the exchange has stopped trading it: set delisted_at"
