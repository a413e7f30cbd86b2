"""The frames every contender gets: recorded ones, taken several times with ids and times moved on."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from collectors.events import Channel

CAPTURE = Path(__file__).resolve().parents[2] / "shared" / "captures" / "hftbacktest" / "spot_btcusdt_20240809.gz"
"""Recorded traffic of Binance spot beside the checkout, where there is any; else the simulator's is taken."""
_IDS = re.compile(rb'"(U|u|t)":(\d+)')
_TIMES = re.compile(rb'"(E|T)":(\d+)')
SUFFIX: dict[Channel, bytes] = {"trades": b"@trade", "quotes": b"@bookTicker", "book_events": b"@depth@100ms"}


def channel_of(payload: bytes) -> Channel:
    """Which channel a frame belongs to."""
    stream = payload[11 : payload.index(b'"', 11)]
    return next(channel for channel, suffix in SUFFIX.items() if stream.endswith(suffix))


def recorded() -> tuple[str, list[tuple[int, bytes]]]:
    """Where the frames come from, and (recv_ns, payload) of one pass."""
    if CAPTURE.is_file():
        with gzip.open(CAPTURE, "rb") as file:
            split = (line.rstrip(b"\n").split(b" ", 1) for line in file)
            return f"recorded Binance spot, {CAPTURE.name}", [(int(stamp), payload) for stamp, payload in split]
    return "the simulator's, seed 1, 20 s", _simulated()


def _simulated() -> list[tuple[int, bytes]]:
    """Twenty seconds of the simulator at a high rate, journaled by the recorder itself and read back."""
    from bench.children import frames_of_journal, run_recorder  # noqa: PLC0415  only where there is no capture

    command = [sys.executable, "-m", "collectors", "simulate", "--symbol", "BTCUSDT", "--rate", "1500"]
    simulator = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
    try:
        assert simulator.stdout is not None
        url = next(iter(json.loads(simulator.stdout.readline()).values()))
        folder = Path(".cache/bench/simulated") / str(time.time_ns())
        run_recorder(url, folder, seconds=20)
        return sorted(frames_of_journal(folder / "binance"))
    finally:
        simulator.terminate()
        simulator.wait()


def passes(frames: list[tuple[int, bytes]], count: int) -> Iterator[tuple[int, bytes]]:
    """The frames ``count`` times over; each pass goes on where the one before ended, in ids and in time."""
    span_ns = frames[-1][0] - frames[0][0] + 1_000_000
    spans = {channel: _span([p for _, p in frames if channel_of(p) == channel]) for channel in SUFFIX}
    for number in range(count):
        for recv_ns, payload in frames:
            ids, ms = number * spans[channel_of(payload)], number * span_ns // 1_000_000
            moved = payload
            if number:
                moved = _IDS.sub(lambda m, by=ids: b'"%b":%d' % (m[1], int(m[2]) + by), payload)  # type: ignore[misc]
                moved = _TIMES.sub(lambda m, by=ms: b'"%b":%d' % (m[1], int(m[2]) + by), moved)  # type: ignore[misc]
            yield recv_ns + number * span_ns, moved


def _span(payloads: list[bytes]) -> int:
    ids = [int(m[2]) for payload in payloads for m in _IDS.finditer(payload)]
    return max(ids) - min(ids) + 1
