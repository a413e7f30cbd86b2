"""The recorder against the simulated exchange: what the exchange sent is what the journal holds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from collectors.config import Endpoint
from collectors.decode import decoder
from collectors.errors import UsageError
from collectors.events import BookEvent, Channel, Quote, Trade
from collectors.journal import (
    Close,
    Damage,
    Gap,
    Header,
    Limits,
    Mark,
    SegmentReader,
    Snapshot,
    Subscribed,
    is_mark,
    lines,
    parse_frame,
    parse_mark,
    segment_of,
    segments,
)
from collectors.journal.verify import verify
from collectors.record import snapshots
from collectors.record.connection import Timing
from collectors.record.recorder import Recorder, Settings
from collectors.simulator import Address, Config, Fault, Simulator
from collectors.universe import Instrument
from tests.conftest import ROOT

CHANNELS: list[Channel] = ["trades", "quotes", "book_events"]
QUICK = Timing(ping=0.2, stall=1.0, acknowledge=5.0, farewell=1.0)


def instrument(number: int, native_id: str, channels: list[Channel] | None = None) -> Instrument:
    base = native_id.removesuffix("USDT")
    return Instrument(
        id=number,
        exchange="binance",
        symbol=f"{base}/USDT",
        native_id=native_id,
        kind="spot",
        base=base,
        quote="USDT",
        listed_at=datetime(2017, 8, 17, tzinfo=UTC),
        channels=channels or CHANNELS,
    )


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for a state."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  the state is files and other processes' doing
            await asyncio.sleep(0.02)


class Journal:
    """All that a recorder's journal holds, by segment."""

    def __init__(self, folder: Path) -> None:
        self.frames: dict[Path, list[tuple[int, bytes]]] = {}
        self.marks: dict[Path, list[Mark]] = {}
        self.damages: list[Damage] = []
        for path in segments(folder / "binance"):
            self.frames[path], self.marks[path] = [], []
            with SegmentReader(path) as reader:
                for item in reader.read():
                    if isinstance(item, Damage):
                        self.damages.append(item)
                        continue
                    for _, line in lines(item.data, item.start):
                        if is_mark(line):
                            self.marks[path].append(parse_mark(line))
                        else:
                            self.frames[path].append(parse_frame(line))

    def all(self, kind: type[Any]) -> list[Any]:
        return [mark for marks in self.marks.values() for mark in marks if isinstance(mark, kind)]

    def segments_of(self, channel: str) -> list[Path]:
        subscribed = {
            path: [mark.channel for mark in marks if isinstance(mark, Subscribed)] for path, marks in self.marks.items()
        }
        return [path for path, channels in subscribed.items() if channel in channels]

    def events(self, kind: type[Any]) -> list[Any]:
        decode = decoder("binance").decode
        events = (event for frames in self.frames.values() for _, payload in frames for event in decode(payload))
        return [event for event in events if isinstance(event, kind)]

    def closes(self, channel: str) -> list[str]:
        return [
            mark.reason for path in self.segments_of(channel) for mark in self.marks[path] if isinstance(mark, Close)
        ]


@contextlib.asynccontextmanager
async def exchange(symbols: list[str] | None = None, rate: float = 200) -> AsyncIterator[Simulator]:
    async with Simulator(
        Config(symbols=symbols or ["BTCUSDT", "ETHUSDT"], rate=rate, levels=100, listeners=[Address("a"), Address("b")])
    ) as simulator:
        yield simulator


def settings(simulator: Simulator, journal: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "ingestor": "ing1",
        "journal": journal,
        "exchange": "binance",
        "endpoint": Endpoint(rest=simulator.rest_url("a"), ws=simulator.ws_url("a")),
        "instruments": [instrument(1, "BTCUSDT"), instrument(2, "ETHUSDT")],
        "commit_interval": 0.05,
        "timing": QUICK,
    }
    return Settings(**{**given, **changes})


@contextlib.asynccontextmanager
async def recording(of: Settings) -> AsyncIterator[Recorder]:
    """A recorder at work; on leaving it is stopped in good order."""
    recorder, stop = Recorder(of), asyncio.Event()
    task = asyncio.create_task(recorder.run(stop))
    try:
        await until(lambda: task.done() or is_synchronised(recorder))
        assert not task.done(), task
        yield recorder
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await task


def is_synchronised(recorder: Recorder) -> bool:
    connections = list(recorder.connections)
    return (
        len(connections) == 3
        and all(connection.is_subscribed for connection in connections)
        and all(
            book.is_bridged
            for connection in connections
            if connection.subscription.channel == "book_events"
            for book in connection.books.values()
        )
    )


async def test_the_journal_holds_exactly_what_the_exchange_sent(tmp_path: Path) -> None:
    async with exchange() as simulator:
        async with recording(settings(simulator, tmp_path)) as recorder:
            start = {s: (e.trade_id, e.update_id) for s, e in simulator.engines.items()}
            await asyncio.sleep(1.0)
            simulator.pause()
            ends = {s: (e.trade_id, e.update_id) for s, e in simulator.engines.items()}
            await until(lambda: last_ids(tmp_path) == {s: update for s, (_, update) in ends.items()})
            assert recorder.connections
        truth = simulator.truth
    journal = Journal(tmp_path)
    assert journal.damages == []
    assert len(journal.all(Subscribed)) == 3
    assert journal.all(Gap) == []
    assert [mark.reason for mark in journal.all(Close)] == ["shutdown"] * 3
    for symbol, (first_trade, first_update) in start.items():
        trades = [t for t in journal.events(Trade) if t.native_id == symbol and int(t.trade_id) > first_trade]
        true = [t.event for t in truth.symbols[symbol].trades if t.event.trade_id > first_trade]
        assert len(true) > 20
        assert [(int(t.trade_id), t.price, t.amount) for t in trades] == [(t.trade_id, t.price, t.amount) for t in true]
        books = [b for b in journal.events(BookEvent) if b.native_id == symbol and b.first_id > first_update]
        true_books = [b.event for b in truth.symbols[symbol].book_events if b.event.first_id > first_update]
        assert len(true_books) > 5
        assert [(b.first_id, b.last_id, b.bids, b.asks) for b in books] == [
            (b.first_id, b.last_id, list(map(tuple, b.bids)), list(map(tuple, b.asks))) for b in true_books
        ]
        quotes = [q.update_id for q in journal.events(Quote) if q.native_id == symbol and q.update_id > first_update]
        true_quotes = [q.event.update_id for q in truth.symbols[symbol].quotes]
        assert quotes == [update_id for update_id in true_quotes if update_id > first_update]
    for path, frames in journal.frames.items():
        stamps = [recv_ns for recv_ns, _ in frames]
        assert stamps == sorted(stamps)
        assert stamps[0] > segment_of(path).epoch


def last_ids(folder: Path) -> dict[str, int]:
    return {event.native_id: event.last_id for event in Journal(folder).events(BookEvent)}


async def test_each_book_gets_a_snapshot_that_bridges_to_its_updates(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)):
        pass
    journal = Journal(tmp_path)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        snapshots = [mark for mark in journal.all(Snapshot) if mark.symbol == symbol]
        updates = [event for event in journal.events(BookEvent) if event.native_id == symbol]
        last = [decoder("binance").decode_snapshot(symbol, mark.reply.encode()).last_id or 0 for mark in snapshots]
        assert any(u.first_id <= one + 1 <= u.last_id for one in last for u in updates)
        assert all(mark.requested_at < mark.at for mark in snapshots)


def last_snapshots_bridge(journal: Journal) -> bool:
    """Whether of each book the last snapshot leads over into an update."""
    for native_id in ("BTCUSDT", "ETHUSDT"):
        replies = [mark.reply for mark in journal.all(Snapshot) if mark.symbol == native_id]
        last_id = decoder("binance").decode_snapshot(native_id, replies[-1].encode()).last_id or 0
        updates = [event for event in journal.events(BookEvent) if event.native_id == native_id]
        if not any(update.first_id <= last_id + 1 <= update.last_id for update in updates):
            return False
    return True


async def test_each_book_gets_a_further_snapshot_when_an_hour_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = time.time() + 8  # a recorder has begun by then, on a slow machine too
    monkeypatch.setattr(snapshots, "until_full_hour", lambda now: hour - now if now < hour else 3600)
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        await until(lambda: recorder.snapshots.taken == 4, 60)
        await until(lambda: len(Journal(tmp_path).all(Snapshot)) == 4)
        await until(lambda: last_snapshots_bridge(Journal(tmp_path)))
    journal = Journal(tmp_path)
    for native_id in ("BTCUSDT", "ETHUSDT"):
        first, second = (mark for mark in journal.all(Snapshot) if mark.symbol == native_id)
        assert first.at < hour * 1e9 <= second.at
    assert journal.all(Gap) == []


async def test_a_dropped_depth_frame_is_marked_and_a_new_snapshot_bridges(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        before = recorder.snapshots.taken
        simulator.fault(Fault("drop", listener="a", stream="depth", symbol="BTCUSDT", count=1))
        await until(lambda: simulator.log.count("drop") == 1)
        await until(lambda: recorder.snapshots.taken > before and is_synchronised(recorder))
    journal = Journal(tmp_path)
    (gap,) = journal.all(Gap)
    assert (gap.symbol, gap.channel) == ("BTCUSDT", "book_events")
    assert gap.found > gap.expected
    after = [mark for mark in journal.all(Snapshot) if mark.at > gap.at]
    assert [mark.symbol for mark in after][:1] == ["BTCUSDT"]


async def test_duplicated_and_late_frames_cost_no_frame(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        simulator.fault(Fault("duplicate", listener="a", count=5))
        simulator.fault(Fault("reorder", listener="a", stream="depth", count=2))
        simulator.fault(Fault("malformed", listener="a", count=5))
        await until(lambda: simulator.log.count("malformed") == 5 and simulator.log.count("reorder") == 2)
        await asyncio.sleep(0.5)
        await until(lambda: is_synchronised(recorder))
    journal = Journal(tmp_path)
    assert len(journal.all(Subscribed)) == 3, "no connection had to be begun anew"
    payloads = [payload for frames in journal.frames.values() for _, payload in frames]
    assert sum(not payload.endswith(b"}") for payload in payloads) == 5, "malformed frames are kept as they came"


async def test_a_disconnect_begins_a_new_epoch(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        first = {connection.journal.epoch for connection in recorder.connections}
        simulator.fault(Fault("disconnect", listener="a"))
        await until(
            lambda: (
                is_synchronised(recorder)
                and not first & {connection.journal.epoch for connection in recorder.connections}
            )
        )
    journal = Journal(tmp_path)
    for channel in CHANNELS:
        one, two = journal.segments_of(channel)
        assert segment_of(two).epoch > segment_of(one).epoch
        assert journal.closes(channel) == ["disconnect", "shutdown"]


async def test_a_stalled_socket_is_given_up_and_a_quiet_market_is_not(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        first = {connection.journal.epoch for connection in recorder.connections}
        simulator.pause()
        await asyncio.sleep(3 * QUICK.stall)
        assert first == {connection.journal.epoch for connection in recorder.connections}, "quiet is not dead"
        quiet = {c.journal.alive for c in recorder.connections}
        await until(lambda: all(c.journal.alive not in quiet for c in recorder.connections))  # pongs count
        simulator.fault(Fault("stall", listener="a", seconds=60))
        await until(lambda: not first & {connection.journal.epoch for connection in recorder.connections})
        await simulator.clear_faults()
        simulator.resume()
        await until(lambda: is_synchronised(recorder))
    journal = Journal(tmp_path)
    assert all(journal.closes(channel)[0] == "stall" for channel in CHANNELS)


async def test_an_outage_makes_no_segments_and_ends_with_the_exchange_back(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        simulator.fault(Fault("refuse", listener="a", seconds=2))
        await until(lambda: len(recorder.connections) < 3 or not any(c.is_subscribed for c in recorder.connections))
        during = len(segments(tmp_path / "binance"))
        assert during == 3
        await until(lambda: is_synchronised(recorder))
    assert len(segments(tmp_path / "binance")) == 6


async def test_snapshots_refused_by_the_exchange_are_asked_for_again(tmp_path: Path) -> None:
    async with exchange() as simulator:
        simulator.fault(Fault("status", listener="a", path="/depth", status=503, count=3))
        async with recording(settings(simulator, tmp_path)):
            assert simulator.log.count("status") == 3
    assert len(Journal(tmp_path).all(Snapshot)) >= 2


async def test_a_symbol_unknown_to_the_exchange_is_named_and_the_others_are_recorded(tmp_path: Path) -> None:
    async with exchange() as simulator:
        instruments = [instrument(1, "BTCUSDT"), instrument(77, "NOSUCHUSDT")]
        with capture_logs() as logs:
            async with recording(settings(simulator, tmp_path, instruments=instruments)):
                pass
        (error,) = [entry for entry in logs if entry["log_level"] == "error"]
        assert (error["native_id"], error["instrument_id"]) == ("NOSUCHUSDT", 77)
        assert {symbol for mark in Journal(tmp_path).all(Subscribed) for symbol in mark.symbols} == {"BTCUSDT"}
        with pytest.raises(UsageError, match="NOSUCHUSDT"):
            await Recorder(settings(simulator, tmp_path, instruments=instruments[1:])).run(asyncio.Event())


async def test_a_failed_handler_of_ours_takes_its_connection_down_and_a_new_epoch_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)) as recorder:
        victim = next(c for c in recorder.connections if c.subscription.channel == "trades")

        async def fail() -> None:
            raise RuntimeError("a defect")

        with capture_logs() as logs:
            monkeypatch.setattr(victim._client.connection, "ping", fail)
            await until(lambda: victim.is_over)
        assert any(entry["log_level"] == "error" and "failed" in entry["event"] for entry in logs)
        await until(lambda: is_synchronised(recorder))
    journal = Journal(tmp_path)
    assert journal.closes("trades") == ["crash", "shutdown"]
    assert journal.closes("quotes") == ["shutdown"]


async def test_a_full_disk_stops_reading_and_loses_nothing_while_the_buffer_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes fail for a while: nothing is committed, nothing is lost, and no gap is made."""
    async with exchange(rate=300) as simulator, recording(settings(simulator, tmp_path)) as recorder:
        epochs = {c.journal.epoch for c in recorder.connections}
        with monkeypatch.context() as patched:

            def full(fd: int, data: bytes, offset: int) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr(os, "pwrite", full)
            await until(lambda: all(c.journal.failing_since is not None for c in recorder.connections))
            alive = {c.journal.durable_alive for c in recorder.connections}
            await asyncio.sleep(1)
            assert alive == {c.journal.durable_alive for c in recorder.connections}
        await until(lambda: all(c.journal.failing_since is None for c in recorder.connections))
        assert epochs == {c.journal.epoch for c in recorder.connections}
    journal = Journal(tmp_path)
    assert journal.damages == []
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ids = [int(t.trade_id) for t in journal.events(Trade) if t.native_id == symbol]
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_disk_that_stays_full_ends_the_epoch_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exchange(rate=1000) as simulator:
        small = Limits(buffer_bytes=20_000, early_bytes=10_000)
        async with recording(settings(simulator, tmp_path, limits=small)) as recorder:
            with monkeypatch.context() as patched:

                def full(fd: int, data: bytes, offset: int) -> int:
                    raise OSError(errno.ENOSPC, "No space left on device")

                patched.setattr(os, "pwrite", full)
                await until(lambda: all(c.is_over for c in recorder.connections))
                assert max(c.journal.fill for c in recorder.connections) < 20, "memory stays bounded"
            await until(lambda: is_synchronised(recorder))
    journal = Journal(tmp_path)
    assert journal.damages == []
    for channel in CHANNELS:
        assert journal.closes(channel)[0] == "disk"


async def test_a_connection_is_replaced_before_its_time_and_nothing_is_missed(tmp_path: Path) -> None:
    async with exchange(rate=500) as simulator:
        async with recording(settings(simulator, tmp_path, lifetime=2.0)) as recorder:
            first = {c.journal.epoch for c in recorder.connections}
            await until(lambda: not first & {c.journal.epoch for c in recorder.connections})
            await until(lambda: is_synchronised(recorder))
        trades = {s: {t.event.trade_id for t in of.trades} for s, of in simulator.truth.symbols.items()}
    journal = Journal(tmp_path)
    for channel in CHANNELS:
        closes = journal.closes(channel)
        assert closes[0] == "handover"
        assert set(closes) <= {"handover", "shutdown"}
        old, new, *_ = journal.segments_of(channel)
        assert min(at for at, _ in journal.frames[new]) < max(at for at, _ in journal.frames[old]), "side by side"
    assert journal.all(Gap) == []
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ids = {int(t.trade_id) for t in journal.events(Trade) if t.native_id == symbol}
        assert len(ids) > 100
        assert {one for one in trades[symbol] if min(ids) <= one <= max(ids)} == ids


async def test_the_header_names_the_address_that_was_dialled(tmp_path: Path) -> None:
    async with exchange() as simulator, recording(settings(simulator, tmp_path)):
        pass
    urls = {mark.url for mark in Journal(tmp_path).all(Header)}
    assert urls
    assert all(url.startswith(simulator.ws_url("a") + "/ws") for url in urls)


# -- as a process --


@contextlib.contextmanager
def process(simulator: Simulator, folder: Path) -> Iterator[subprocess.Popen[str]]:
    universe = {
        "version": 1,
        "instruments": [
            {
                "id": 1,
                "exchange": "binance",
                "symbol": "BTC/USDT",
                "native_id": "BTCUSDT",
                "kind": "spot",
                "base": "BTC",
                "quote": "USDT",
                "listed_at": datetime(2017, 8, 17, tzinfo=UTC),
                "channels": CHANNELS,
            }
        ],
    }
    (folder / "universe.yml").write_text(yaml.safe_dump(universe))
    config = {
        "ingestor": "ing1",
        "journal": str(folder / "journal"),
        "universe": str(folder / "universe.yml"),
        "exchanges": {"binance": {"rest": simulator.rest_url("a"), "ws": simulator.ws_url("a")}},
    }
    (folder / "cryptopip.yml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "collectors", "record", "binance", "--config", str(folder / "cryptopip.yml")]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, cwd=ROOT, stderr=log, text=True)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


async def test_a_recorder_that_is_killed_leaves_all_it_committed(tmp_path: Path) -> None:
    async with exchange(rate=500) as simulator:
        with process(simulator, tmp_path) as child:
            await until(lambda: len(Journal(tmp_path / "journal").events(Trade)) > 200, 60)
            child.send_signal(signal.SIGKILL)
            await asyncio.to_thread(child.wait)
        killed_at = time.time_ns()
    journal = Journal(tmp_path / "journal")
    assert journal.damages == []
    ids = [int(trade.trade_id) for trade in journal.events(Trade)]
    assert ids == list(range(ids[0], ids[0] + len(ids))), "no hole before the kill"
    paths = segments(tmp_path / "journal" / "binance")
    assert {verify(path).state for path in paths} == {"crashed"}
    newest = max(recv_ns for frames in journal.frames.values() for recv_ns, _ in frames)
    assert killed_at - newest < 5 * 10**9


async def test_sigterm_commits_everything_and_closes_with_shutdown(tmp_path: Path) -> None:
    async with exchange() as simulator:
        with process(simulator, tmp_path) as child:
            await until(lambda: len(Journal(tmp_path / "journal").events(Trade)) > 50, 60)
            child.terminate()
            assert await asyncio.to_thread(child.wait, 20) == 0, (tmp_path / "log").read_text()
    journal = Journal(tmp_path / "journal")
    assert [mark.reason for mark in journal.all(Close)] == ["shutdown"] * 3
    assert all(verify(path).is_whole for path in segments(tmp_path / "journal" / "binance"))
