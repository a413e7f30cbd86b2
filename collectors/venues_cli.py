"""``cryptopip venues``: what is recorded of each exchange, and how far it is proven."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from collectors.decode import EXCHANGES, Decoder, decoder
from collectors.simulator.wire import SIMULATED

REPLAYED: Final = frozenset(
    {
        "binance",
        "binanceusdm",
        "bitget",
        "bitstamp",
        "coinbaseexchange",
        "deribit",
        "gate",
        "htx",
        "krakenfutures",
        "kucoin",
        "okx",
    }
)
"""Exchanges whose decoder is tested against recorded traffic; a test holds this to the tests there are."""
_HEAD: Final = ("CHANNEL", "STREAM", "IDENTITY", "PROOF", "SNAPSHOT", "DEPTH")


def venues(
    exchange: Annotated[str | None, typer.Argument(help="One exchange alone, by ccxt's id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Show of each exchange its channels, what makes their events the same, and what proves that none is missing.

    Tested against: contract (messages written from the documentation), capture (recorded traffic), chain (a simulated
    exchange that knows the truth: recorded by ccxt under faults, loaded, merged and compared).

    Example: cryptopip venues kraken --json
    """
    found = [describe(decoder(one)) for one in ((exchange,) if exchange is not None else EXCHANGES)]
    typer.echo(json.dumps(found) if as_json else "\n\n".join(as_text(one) for one in found))


def describe(one: Decoder) -> dict[str, Any]:
    """All that is declared of an exchange, as JSON has it."""
    return {
        "exchange": one.exchange,
        "decoder": one.version,
        "documentation": one.documentation,
        "tested_against": tested_against(one.exchange),
        "channels": {
            channel: {
                "stream": stream.name,
                "identity": stream.identity.value,
                "proof": stream.proof.value,
                "snapshot": stream.snapshot,
                "depth": stream.depth,
            }
            for channel, stream in one.streams.items()
        },
    }


def tested_against(exchange: str) -> list[str]:
    """``contract``, and where it is so ``capture`` and ``chain`` (tests/integration/test_venues.py)."""
    further = {"capture": REPLAYED, "chain": SIMULATED}
    return ["contract", *(kind for kind, exchanges in further.items() if exchange in exchanges)]


def as_text(venue: dict[str, Any]) -> str:
    """A headline, the page that the decoder follows, and a table of the channels."""
    rows = [_HEAD, *(_row(channel, stream) for channel, stream in venue["channels"].items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        [
            f"{venue['exchange']}: decoder {venue['decoder']}, tested against {', '.join(venue['tested_against'])}",
            f"  {venue['documentation']}",
            *("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
        ]
    )


def _row(channel: str, stream: dict[str, Any]) -> tuple[str, ...]:
    depth = "all" if stream["depth"] is None else str(stream["depth"])
    is_book = stream["snapshot"] is not None
    return (
        channel,
        stream["stream"],
        stream["identity"],
        stream["proof"],
        stream["snapshot"] if is_book else "-",
        depth if is_book else "-",
    )
