"""``bin/bench ingest``: how fast frames become rows, as ratios to floors and peers measured in the same run.

What it does not show: a network, a real exchange's pace, disks under other load, fsync where the test database runs
without. Numbers of one machine say little elsewhere; the ratios say more. Peers handle frames without a socket and
without keeping them, which favours them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

from bench.children import ROOT, dump, fingerprint, frames_of, frames_of_journal, write_journal
from bench.frames import SUFFIX, passes, recorded
from collectors.journal import Limits
from collectors.universe import Universe, load_universe
from collectors.universe_load import load_universe_into
from tests.conftest import fresh_database

CACHE = ROOT / ".cache" / "bench"
PEERS = {"ccxt": "peer_ccxt.py", "cryptofeed": "peer_cryptofeed.py"}
Answer = dict[str, Any]
TIMES = 2
"""How often a round has decoders, loader and sync do their work, each beside what it is compared with.

A machine may be half as fast for seconds, CPU time included; what is compared must have met the same moments.
"""
FLOOD = 256 * 1024
"""Bytes of one write where the exchange is to be faster than any reader: hundreds of frames at a time."""


def child(*arguments: str) -> Answer:
    """Run one action of bench.children in a process of its own."""
    return run([sys.executable, "-m", "bench.children", *arguments])


def run(command: list[str]) -> Answer:
    """What a command prints as its last line. Ends the benchmark where it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextmanager
def server(frames: Path, piece: int) -> Iterator[str]:
    """The exchange that sends these frames, ``piece`` bytes at once (0: each by itself); its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.server", str(frames), str(piece)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def record(frames: Path, count: int, truth: dict[str, str], piece: int = FLOOD) -> Answer:
    """The recorder on these frames; its journal must hold exactly them."""
    folder = CACHE / "journal-recorded"
    shutil.rmtree(folder, ignore_errors=True)
    with server(frames, piece) as url:
        answer = child("record", url, str(folder), str(count))
    found = fingerprint(frames_of_journal(folder / "binance"))
    if found != truth:
        raise SystemExit(f"the recorder's journal differs from what was sent: {found}, expected {truth}")
    return answer


def bare(frames: Path, count: int, piece: int = FLOOD) -> Answer:
    """The bare receive loop on these frames."""
    with server(frames, piece) as url:
        return child("bare", url, str(count))


@contextmanager
def database(kind: str, universe: Universe) -> Iterator[str]:
    """A fresh database of the test server, with the instrument; dropped afterwards."""
    fresh = fresh_database(test_server(), kind)
    name = next(fresh)
    try:
        with psycopg.connect(name, client_encoding="UTF8") as connection:
            load_universe_into(connection, "datalake" if kind == "datalake" else "ingestor", universe)
        yield name
    finally:
        for _ in fresh:
            pass


def load_and_pull(journal: Path, universe: Universe) -> dict[str, Answer]:
    """Loader and its floor, sync and its floor, one after another on fresh databases."""
    rows = CACHE / "rows"
    with database("ingestor", universe) as ingestor:
        answers = {"load": child("load", str(journal), ingestor)}
        dump(ingestor, rows)
        with database("ingestor", universe) as floor:
            answers["copy"] = child("copy", floor, str(rows))
        with database("datalake", universe) as datalake:
            answers["sync"] = child("sync", ingestor, datalake)
            dump(datalake, rows)
            with database("datalake", universe) as floor:
                answers["sync copy"] = child("copy", floor, str(rows))
    counts = {name: answer["rows"] for name, answer in answers.items()}
    if len(set(counts.values())) != 1:
        raise SystemExit(f"not the same rows everywhere: {counts}")
    return answers


class Rates:
    """What each contender reached in each round, per second."""

    def __init__(self) -> None:
        self._rates: dict[str, list[float]] = {}

    def add(self, name: str, amount: float, seconds: float) -> None:
        self._rates.setdefault(name, []).append(amount / seconds)

    def of(self, name: str) -> float:
        """The best of all: whatever else ran on the machine, or beside it on the same host, only took from it."""
        return max(self._rates[name])

    def lines(self) -> Iterator[str]:
        for name, rates in self._rates.items():
            spread = (max(rates) - min(rates)) / self.of(name)
            yield f"  {name:<44} {self.of(name):>12,.0f}   {min(rates):>12,.0f} .. {max(rates):>12,.0f}   {spread:5.0%}"


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast frames become rows, against floors and peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--passes", type=int, default=4, help="how often the recorded frames are taken; tenfold for memory"
    )
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    source, frames = recorded()
    universe = Universe(load_universe(ROOT / "files" / "universe.yml").instruments[:1])
    small, large, huge = (CACHE / f"frames-{size}.log" for size in ("small", "large", "huge"))
    for path, count in ((small, options.passes), (large, options.passes * 10), (huge, options.passes * 40)):
        with path.open("wb") as file:
            for recv_ns, payload in passes(frames, count):
                file.write(b"%d %b\n" % (recv_ns, payload))
    count, truth = len(frames) * options.passes, fingerprint(frames_of(small))
    print(machine("ingest", f"frames: {source}; {count:,} of them"))
    print(f"  loaded by others: {os.getloadavg()[0]:.2f} (a busy machine widens the spread)\n")

    rates = Rates()
    journals = {}
    for name, path in (("small", small), ("large", large)):
        journals[name] = CACHE / f"journal-{name}" / "binance"
        shutil.rmtree(journals[name].parent, ignore_errors=True)
        asyncio.run(write_journal(path, journals[name]))
    memory: dict[str, list[int]] = {}
    versions: dict[str, str] = {}
    for number in range(options.rounds):
        begun = time.monotonic()
        contenders: list[Callable[[], None]] = [
            *[
                lambda: one_rate(rates, memory, "recorder, journaled", count, record(small, count, truth)),
                lambda: one_rate(rates, memory, "bare aiohttp receive loop", count, bare(small, count)),
            ]
            * TIMES,
            lambda: one_rate(rates, {}, "recorder, frame by frame", count, record(small, count, truth, 0)),
            lambda: one_rate(rates, {}, "bare loop, frame by frame", count, bare(small, count, 0)),
            *[
                lambda: by_channel(rates, "decode + encode", child("encode", str(small))),
                *(
                    lambda name=name, script=script: peer(rates, versions, name, script, small)
                    for name, script in PEERS.items()
                ),
                lambda: database_rates(rates, memory, load_and_pull(journals["small"], universe)),
            ]
            * TIMES,
        ]
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            contender()
        print(f"  round {number + 1} of {options.rounds}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    one_rate(None, memory, "recorder, journaled", count * 10, record(large, count * 10, fingerprint(frames_of(large))))
    one_rate(None, memory, "bare aiohttp receive loop", count * 10, bare(large, count * 10))
    database_rates(None, memory, load_and_pull(journals["large"], universe))
    # A flood this short ends before the recorder's buffers are full, so that it needs more to show where it stops.
    most = record(huge, count * 40, fingerprint(frames_of(huge)))["peak_kib"]
    huge.unlink()

    print("  per second: frames by CPU, rows by the clock                best          least ..         most   spread")
    print("\n".join(rates.lines()))
    print(f"\n  peers: {', '.join(f'{name} {text}' for name, text in sorted(versions.items()))}\n")
    missed = print_ratios(rates)
    print(f"\n  peak memory, MiB                          {count:>11,} frames {count * 10:>12,} frames")
    for name, (once, tenfold) in ((name, (max(found[:-1]), found[-1])) for name, found in memory.items()):
        print(f"  {name:<44} {once / 1024:>12.0f} {tenfold / 1024:>18.0f}   {tenfold / once:5.2f} x")
    growth = most / memory["recorder, journaled"][-1]
    print(f"  recorder, journaled, {count * 40:,} frames: {most / 1024:.0f}, {growth:.2f} x that of a quarter of them;")
    print(f"  up to {Limits().buffer_bytes >> 20} MiB of frames wait for the disk on each of its three connections")
    if options.json:
        options.json.write_text(
            json.dumps({"rates": rates._rates, "memory_kib": memory, "versions": versions}, indent=1)
        )
    return 1 if missed else 0


def one_rate(rates: Rates | None, memory: dict[str, list[int]], name: str, amount: int, answer: Answer) -> None:
    """Note a CPU rate and the peak memory."""
    if rates is not None:
        rates.add(name, amount, answer["cpu"])
    memory.setdefault(name, []).append(answer["peak_kib"])


def by_channel(rates: Rates, name: str, answer: Answer) -> None:
    """Note a CPU rate for each channel."""
    for channel in SUFFIX:
        rates.add(f"{name}: {channel}", answer["frames"][channel], answer["cpu"][channel])


def peer(rates: Rates, versions: dict[str, str], name: str, script: str, frames: Path) -> None:
    """A peer's handling of the same frames, in its own environment."""
    answer = run([str(CACHE / name / "bin" / "python"), str(ROOT / "bench" / script), str(frames)])
    versions[name] = answer["version"]
    by_channel(rates, name, answer)
    rates.add(f"{name}: all", sum(answer["frames"].values()), sum(answer["cpu"].values()))


def database_rates(rates: Rates | None, memory: dict[str, list[int]], answers: dict[str, Answer]) -> None:
    """Note the rates by the clock, and the peak memory of loader and sync."""
    names = {
        "load": "loader",
        "copy": "COPY of the loader's rows",
        "sync": "sync",
        "sync copy": "COPY of the datalake's rows",
    }
    for key, answer in answers.items():
        if rates is not None:
            rates.add(names[key], answer["rows"], answer["seconds"])
        if key in ("load", "sync"):
            memory.setdefault(names[key], []).append(answer["peak_kib"])


TARGETS = [
    ("recorder, journaled", "bare aiohttp receive loop", 1.0),
    ("recorder, frame by frame", "bare loop, frame by frame", None),
    ("recorder, journaled", "ccxt: all", 5.0),
    ("recorder, journaled", "cryptofeed: all", None),
    ("decode + encode: trades", "cryptofeed: trades", 1.2),
    ("decode + encode: trades", "ccxt: trades", 10.0),
    ("decode + encode: quotes", "cryptofeed: quotes", None),
    ("decode + encode: quotes", "ccxt: quotes", None),
    ("decode + encode: book_events", "cryptofeed: book_events", 5.0),
    ("decode + encode: book_events", "ccxt: book_events", None),
    ("loader", "COPY of the loader's rows", 0.6),
    ("sync", "COPY of the datalake's rows", 0.5),
]


def print_ratios(rates: Rates) -> int:
    """All ratios with their targets; how many miss."""
    missed = 0
    for ours, theirs, target in TARGETS:
        ratio = rates.of(ours) / rates.of(theirs)
        verdict = "" if target is None else f"target {target:>4}  {'reached' if ratio >= target else 'MISSED'}"
        missed += target is not None and ratio < target
        print(f"  {ours:<30} / {theirs:<28} {ratio:>8.2f}   {verdict}")
    return missed


def test_server() -> str:
    """A superuser's conninfo of the server that is measured with."""
    return os.environ.get("CRYPTOPIP_TEST_DSN", "host=127.0.0.1 port=55432 user=postgres")


def machine(bench: str, subject: str) -> str:
    """What this ran on, and with which versions."""
    cpu = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "?"
    )
    packages = {name: version(name) for name in ("aiohttp", "ccxt", "msgspec", "psycopg")}
    with psycopg.connect(test_server()) as connection:
        row = connection.execute("SELECT current_setting('server_version'), current_setting('fsync')").fetchone()
    assert row is not None
    return (
        f"bench {bench}, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC\n"
        f"  {os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}, Python {platform.python_version()}\n"
        f"  {', '.join(f'{k} {v}' for k, v in packages.items())}; PostgreSQL {row[0]}, fsync {row[1]}\n"
        f"  {subject}"
    )


if __name__ == "__main__":
    sys.exit(main())
