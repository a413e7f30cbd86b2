"""``bin/bench decode``: every exchange's decoder, as ratios to reading JSON alone and to ccxt's handling of the frames.

The frames are the messages of the venues' own tests, each again and again: of the sizes that documentation shows, so
that books have few levels. What it does not show: long books, unusual frames, cold caches. ccxt's handlers make
objects of its own and keep them, ours events for a database; both get the frame as received.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.children import ROOT
from bench.ingest import CACHE, run
from collectors.decode import EXCHANGES, decoder
from collectors.events import BookEvent, Channel, Event, Trade

TO_FLOOR = 0.15
TO_CCXT: dict[Channel, float] = {"trades": 8.0, "book_events": 5.0}
REASONS: dict[str, str] = {}
"""Why a venue may stay below TO_FLOOR."""
_DERIVATIVES = re.compile("futures|coinm|usdm|deribit|dydx|hyperliquid|phemex")
Frame = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast every venue's frames are decoded, against floor and ccxt.")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts, for all contenders alike")
    parser.add_argument("--seconds", type=float, default=0.05, help="CPU seconds for each frame, contender and round")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    frames = [frame for exchange in EXCHANGES for frame in frames_of(exchange)]
    path = CACHE / "decode-frames.json"
    path.write_text(json.dumps(frames))
    best: dict[str, dict[str, float]] = {"ours": {}, "floor": {}, "ccxt": {}}
    answers: dict[str, Any] = {}
    commands = {
        "ours": [sys.executable, "-m", "bench.decode_ours", str(path)],
        "floor": [str(CACHE / "ccxt" / "bin" / "python"), str(ROOT / "bench" / "peer_orjson.py"), str(path)],
        "ccxt": [str(CACHE / "ccxt" / "bin" / "python"), str(ROOT / "bench" / "peer_ccxt_venues.py"), str(path)],
    }
    for number in range(options.rounds):
        begun = time.monotonic()
        for name in commands if number % 2 == 0 else reversed(commands):
            answers[name] = run([*commands[name], str(options.seconds)])
            for frame, rate in answers[name]["rates"].items():
                if rate is not None:
                    best[name][frame] = max(rate, best[name].get(frame, 0))
        print(f"  round {number + 1} of {options.rounds}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(
        f"bench decode, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, orjson {answers['floor']['version']},"
        f" ccxt {answers['ccxt']['version']}; frames per CPU-second, best of {options.rounds}\n"
    )
    missed = print_table(frames, best, answers["ccxt"]["reasons"])
    if options.json:
        options.json.write_text(json.dumps({"rates": best, "reasons": answers["ccxt"]["reasons"]}, indent=1))
    return 1 if missed else 0


def frames_of(exchange: str) -> list[Frame]:
    """A frame of trades and one of the book, which is a whole one where the exchange sends such on the socket.

    A whole book is what ccxt's handler takes again and again; an update it would know to be old.
    """
    messages: dict[str, bytes] = importlib.import_module(f"tests.unit.decode.test_{exchange}").FRAMES
    one = decoder(exchange)
    decoded = [(name, payload, one.decode(payload)) for name, payload in messages.items()]
    picked: list[Frame] = []
    trades = next(((p, e) for _, p, e in decoded if e and all(isinstance(x, Trade) for x in e)), None)
    books = [(p, e) for _, p, e in decoded if e and all(isinstance(x, BookEvent) for x in e)]
    whole = [(p, e) for p, e in books if isinstance(e[0], BookEvent) and e[0].kind == "snapshot"]
    book = next(iter(whole or books), None)
    if trades is not None:
        picked.append(_frame(exchange, "trades", *trades, is_comparable=True))
    if book is not None:
        picked.append(_frame(exchange, "book_events", *book, is_comparable=bool(whole)))
    return picked


def _frame(exchange: str, channel: Channel, payload: bytes, events: Sequence[Event], *, is_comparable: bool) -> Frame:
    return {
        "name": f"{exchange} {channel}",
        "exchange": exchange,
        "channel": channel,
        "native_id": events[0].native_id,
        "is_derivative": _DERIVATIVES.search(exchange) is not None,
        "is_comparable": is_comparable,
        "payload": b64encode(payload).decode(),
    }


def print_table(frames: list[Frame], best: dict[str, dict[str, float]], reasons: dict[str, str]) -> int:
    """A line each; how many targets are missed."""
    missed = 0
    print(f"  {'venue and channel':<32}{'ours':>10}{'floor':>12}{'/ floor':>9}{'ccxt':>9}{'/ ccxt':>8}")
    for frame in frames:
        name, channel = frame["name"], frame["channel"]
        ours, floor, ccxt = (best[who].get(name) for who in ("ours", "floor", "ccxt"))
        assert ours is not None
        notes = []
        if floor is not None and ours / floor < TO_FLOOR:
            reason = REASONS.get(frame["exchange"])
            missed += reason is None
            notes.append(reason or f"MISSED {TO_FLOOR} of the floor")
        if floor is None:
            notes.append("no JSON")
        if not frame["is_comparable"]:
            ccxt = None
            notes.append("ccxt would know the update to be old")
        elif ccxt is None:
            notes.append(f"ccxt: {reasons.get(name, '?')}")
        elif ours / ccxt < TO_CCXT[channel]:
            missed += 1
            notes.append(f"MISSED {TO_CCXT[channel]:g} x ccxt")
        print(
            f"  {name:<32}{ours:>10,.0f}{_or_dash(floor, ',.0f'):>12}{_or_dash(floor and ours / floor, '.2f'):>9}"
            f"{_or_dash(ccxt, ',.0f'):>9}{_or_dash(ccxt and ours / ccxt, '.1f'):>8}   {'; '.join(notes)}".rstrip()
        )
    print(f"\n  {missed} targets missed")
    return missed


def _or_dash(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


if __name__ == "__main__":
    sys.exit(main())
