"""What is measured of ours, and the floors: each in a process of its own, so that CPU time and memory are its alone.

``python -m bench.children ACTION ARGUMENT...``; prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
from psycopg import sql

from bench.frames import SUFFIX, channel_of
from collectors.config import Endpoint, Source, Sync
from collectors.decode import decoder
from collectors.events import Channel
from collectors.journal import (
    Group,
    JournalWriter,
    Position,
    SegmentReader,
    Snapshot,
    Subscribed,
    lines,
    parse_frame,
    segments,
)
from collectors.load.batch import Batch, Stream
from collectors.load.build import build
from collectors.load.coverage import Coverage
from collectors.load.loader import Loader
from collectors.load.source import PIECE_BYTES
from collectors.load.text import COLUMNS
from collectors.record.recorder import Recorder, Settings
from collectors.sync.run import sync_once
from collectors.universe import Instrument, load_universe

ROOT = Path(__file__).resolve().parents[1]


def frames_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """(recv_ns, payload) of a file of frames."""
    with path.open("rb") as file:
        for line in file:
            stamp, payload = line.rstrip(b"\n").split(b" ", 1)
            yield int(stamp), payload


def frames_of_journal(folder: Path) -> Iterator[tuple[int, bytes]]:
    """(recv_ns, payload) of the data frames of every segment."""
    for path in segments(folder):
        with SegmentReader(path) as reader:
            for item in reader.read():
                assert isinstance(item, Group), item
                for _, line in lines(item.data, item.start):
                    if not line.startswith(b"{"):
                        recv_ns, payload = parse_frame(line)
                        if payload.startswith(b'{"stream"'):
                            yield recv_ns, payload


def fingerprint(frames: Iterator[tuple[int, bytes]]) -> dict[str, str]:
    """Hash and count of the payloads of each channel, in order."""
    found: dict[Channel, tuple[int, Any]] = {}
    for _, payload in frames:
        channel = channel_of(payload)
        count, digest = found.get(channel, (0, hashlib.blake2b()))
        digest.update(payload + b"\n")
        found[channel] = (count + 1, digest)
    return {channel: f"{count} {digest.hexdigest()}" for channel, (count, digest) in found.items()}


def bitcoin() -> Instrument:
    """The instrument the frames are of."""
    return load_universe(ROOT / "files" / "universe.yml").instruments[0]


async def record(url: str, folder: Path, expected: int | None, seconds: float | None) -> float:
    """Run the recorder until it has that many frames, or so long; CPU seconds from first frame to last commit."""
    endpoint = Endpoint(rest=url, ws=url.replace("http", "ws", 1))
    recorder = Recorder(Settings("bench", folder, "binance", endpoint, [bitcoin()]))
    stop = asyncio.Event()
    begun = time.process_time()

    async def watch() -> None:
        nonlocal begun
        deadline = time.monotonic() + (seconds or 600)
        acknowledgements = len(SUFFIX)
        while time.monotonic() < deadline:
            count = recorder._counts()["frames"]
            if count <= acknowledgements:
                begun = time.process_time()
            if expected is not None and count >= expected + acknowledgements:
                break
            await asyncio.sleep(0.005)
        stop.set()

    watcher = asyncio.create_task(watch())
    await recorder.run(stop)
    await watcher
    return time.process_time() - begun


def run_recorder(url: str, folder: Path, seconds: float) -> None:
    """Record for so long."""
    asyncio.run(record(url, folder, None, seconds))


async def bare(url: str, expected: int) -> float:
    """The floor: aiohttp's own ``async for`` over the same three subscriptions, every frame looked at and forgotten."""
    count = begun = 0.0

    async def receive(session: aiohttp.ClientSession, suffix: bytes) -> None:
        nonlocal count, begun
        async with session.ws_connect(url + "/stream", max_msg_size=0) as socket:
            await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt" + suffix.decode()], "id": 1})
            async for message in socket:
                if count <= len(SUFFIX):
                    begun = time.process_time()
                if message.data:
                    count += 1
                if count == expected + len(SUFFIX):
                    return

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(receive(session, suffix)) for suffix in SUFFIX.values()]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        spent = time.process_time() - begun
        for task in tasks:
            task.cancel()
    return spent


def encode(path: Path) -> dict[str, Any]:
    """The loader's decoding and encoding, from journal lines to COPY text, for each channel; CPU seconds and rows."""
    spent: dict[str, float] = {}
    rows: dict[str, int] = {}
    for channel in SUFFIX:
        picked = [(recv_ns, payload) for recv_ns, payload in frames_of(path) if channel_of(payload) == channel]
        begun_ns = picked[0][0]
        coverage = Coverage(begun_ns, begun_ns, begun_ns, decoder("binance").consecutive)
        coverage.subscribed(channel, ["BTCUSDT"], begun_ns)
        pieces = [
            b"".join(b"%d %b\n" % frame for frame in picked[at : at + 1000]) for at in range(0, len(picked), 1000)
        ]
        groups, piece, start = [], [], 0
        for data in pieces:
            piece.append(Group(data, start, begun_ns, begun_ns, Position(0, 0, start + len(data))))
            start += len(data)
            if sum(len(group.data) for group in piece) >= PIECE_BYTES:
                groups.append(piece)
                piece = []
        groups.append(piece)
        stream = Stream(1, decoder("binance"))
        count = size = 0
        begun = time.process_time()
        for number, items in enumerate(groups):
            batch, coverage = build(Batch(number + 1, "s", begun_ns), stream, items, coverage, {"BTCUSDT": 1})
            size += len("".join(batch.rows[channel]).encode())
            count += len(batch.rows[channel])
            assert not batch.parked
            assert not batch.rejected
        spent[channel] = time.process_time() - begun
        rows[channel] = count
        assert count == len(picked), (channel, count, len(picked))
        assert size > 50 * count
    return {"frames": rows, "cpu": spent}


async def write_journal(path: Path, folder: Path) -> None:
    """The frames as one closed epoch of a journal, at the times they were recorded."""
    frames = frames_of(path)
    epoch = next(frames)[0] - 1
    writer = JournalWriter(
        folder,
        stream="binance",
        exchange="binance",
        url="bench",
        ingestor="bench",
        software={},
        epoch=epoch,
        clock=lambda: epoch,
    )
    await writer.open()
    for channel in SUFFIX:
        writer.mark(Subscribed(epoch, channel, ["BTCUSDT"]))
    is_bridged = False
    for number, (recv_ns, payload) in enumerate(frames_of(path)):
        if not is_bridged and channel_of(payload) == "book_events":
            first = json.loads(payload)["data"]
            reply = json.dumps({"lastUpdateId": first["U"] - 1, "bids": first["b"], "asks": first["a"]})
            writer.mark(Snapshot(recv_ns, "book_events", "BTCUSDT", "bench", recv_ns, reply))
            is_bridged = True
        writer.append(recv_ns, payload)
        if number % 2000 == 1999:
            await writer.commit()
    await writer.close("shutdown")


def load(folder: Path, dsn: str) -> dict[str, Any]:
    """The loader itself, until nothing is left; wall seconds and rows."""
    begun = time.perf_counter()
    totals = Loader(folder, dsn, "bench", decoder("binance")).run(until_idle=True)
    assert not totals.parked
    assert not totals.rejected
    return {"seconds": time.perf_counter() - begun, "rows": totals.rows}


def dump(dsn: str, folder: Path) -> None:
    """The rows of a database as COPY text, a file for each table: what the floor is given."""
    folder.mkdir(parents=True, exist_ok=True)
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        for channel in SUFFIX:
            columns = _columns(connection, channel)
            query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY received_at) TO STDOUT").format(
                columns, sql.Identifier(channel)
            )
            with (folder / channel).open("wb") as file, connection.cursor().copy(query) as copy:
                for data in copy:
                    file.write(data)


def copy_in(dsn: str, folder: Path) -> dict[str, Any]:
    """The floor: COPY of prepared text into the same tables, one transaction; wall seconds and rows."""
    rows = 0
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        begun = time.perf_counter()
        for channel in SUFFIX:
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
                sql.Identifier(channel), _columns(connection, channel)
            )
            cursor = connection.cursor()
            with (folder / channel).open("rb") as file, cursor.copy(statement) as copy:
                while data := file.read(1 << 20):
                    copy.write(data)
            rows += cursor.rowcount
        connection.commit()
        return {"seconds": time.perf_counter() - begun, "rows": rows}


def _columns(connection: psycopg.Connection[Any], channel: Channel) -> sql.Composable:
    """The columns rows are written with: the loader's in an ingestor, all in the datalake."""
    found = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = %s AND table_schema = 'public' AND is_generated = 'NEVER' ORDER BY ordinal_position",
        [channel],
    ).fetchall()
    names = [row[0] for row in found]
    if "batch" in names:
        return sql.SQL(COLUMNS[channel])
    return sql.SQL(", ").join(map(sql.Identifier, names))


def pull(ingestor: str, datalake: str) -> dict[str, Any]:
    """One sync; wall seconds and rows."""
    begun = time.perf_counter()
    report = sync_once(Sync(datalake, [Source("bench", ingestor)]))
    assert not report.failed, report
    assert report.pulled == report.inserted
    return {"seconds": time.perf_counter() - begun, "rows": report.pulled}


def act(action: str, *arguments: str) -> dict[str, Any]:
    """Run one action by its name."""
    match action, arguments:
        case "record", (url, folder, expected):
            return {"cpu": asyncio.run(record(url, Path(folder), int(expected), None))}
        case "bare", (url, expected):
            return {"cpu": asyncio.run(bare(url, int(expected)))}
        case "encode", (path,):
            return encode(Path(path))
        case "load", (folder, dsn):
            return load(Path(folder), dsn)
        case "copy", (dsn, folder):
            return copy_in(dsn, Path(folder))
        case "sync", (ingestor, datalake):
            return pull(ingestor, datalake)
    raise ValueError(f"unknown action {action} {arguments}")


if __name__ == "__main__":
    answer = act(*sys.argv[1:])
    # Not getrusage: its peak is inherited from the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps(answer | {"peak_kib": int(peak[1])}))
