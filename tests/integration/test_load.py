"""The loader and what it meets: torn and damaged journals, strange frames, a database that stops."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from collectors.decode import decoder
from collectors.journal import JournalWriter, Limits, Subscribed
from collectors.load import Database, Loader, StreamTakenError
from tests.integration.load_harness import (
    ROOT,
    START_NS,
    Traffic,
    add_instrument,
    ask,
    assert_holds,
    assert_ledger,
    count,
    load,
    snapshot_mark,
    start_loader,
    until_more,
    write_journal,
)

pytestmark = pytest.mark.database


def frame(at: int, stream: str, **data: object) -> tuple[int, str]:
    return at, json.dumps({"stream": stream, "data": data})


def trade_at(at: int, trade_id: int, *, symbol: str = "BTCUSDT", ms: int | None = None) -> tuple[int, str]:
    time_ms = at // 10**6 if ms is None else ms
    return frame(at, "x@trade", e="trade", s=symbol, t=trade_id, p="1.5", q="2", T=time_ms, m=True)


def test_a_torn_tail_is_reported_and_all_before_it_loaded(tmp_path: Path, ingestor_dsn: str) -> None:
    traffic = Traffic().add(200)
    folder = tmp_path / "binance"
    write_journal(folder, traffic.epoch, traffic.frames, close=None, group=60)
    (segment,) = folder.glob("*.zst")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-7])
    add_instrument(ingestor_dsn)
    load(folder, ingestor_dsn)
    ((trades,),) = ask(ingestor_dsn, "SELECT count(*) FROM trades")
    assert trades == 180  # ten groups of 60 frames, the last torn
    ((name, to_byte),) = ask(ingestor_dsn, "SELECT segment, to_byte FROM journal_damage")
    assert (name, to_byte) == (segment.name, len(whole) - 7)
    assert ask(ingestor_dsn, "SELECT ended_by FROM connections") == [("crash",)]
    assert_ledger(ingestor_dsn)


def test_garbage_in_the_middle_is_reported_with_its_place_and_the_rest_loaded(
    tmp_path: Path, ingestor_dsn: str
) -> None:
    traffic = Traffic().add(3000)
    folder = tmp_path / "binance"
    write_journal(folder, traffic.epoch, traffic.frames, group=300, limits=Limits(frame_bytes=100 << 10))
    (segment,) = folder.glob("*.zst")
    data = bytearray(segment.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\x00garbage" * 50
    segment.write_bytes(data)
    add_instrument(ingestor_dsn)
    load(folder, ingestor_dsn)
    damages = ask(ingestor_dsn, "SELECT segment, from_byte, to_byte FROM journal_damage")
    assert damages
    assert all(name == segment.name for name, _, _ in damages)
    assert min(low for _, low, _ in damages) <= middle < max(high for _, _, high in damages)
    ids = [int(row[0]) for row in ask(ingestor_dsn, "SELECT trade_id FROM trades ORDER BY trade_id::bigint")]
    assert ids[0] == 1
    assert ids[-1] == 3000
    lost = sorted(set(range(1, 3001)) - set(ids))
    assert lost == list(range(lost[0], lost[-1] + 1)), "more than one stretch is missing"
    assert 0 < len(lost) < 1500
    # What was lost is a gap: no interval of trades has a lost id inside.
    for first, last in ask(
        ingestor_dsn, "SELECT first_id::bigint, last_id::bigint FROM coverage WHERE channel = 'trades'"
    ):
        assert not set(lost) & set(range(first, last + 1))
    assert_ledger(ingestor_dsn)


def test_strange_frames_and_times_are_kept_by_reference_and_block_nothing(tmp_path: Path, ingestor_dsn: str) -> None:
    folder = tmp_path / "binance"
    frames: list[tuple[int, str | bytes]] = [
        trade_at(START_NS + 1000, 1),
        (START_NS + 2000, "neither frame nor reply"),
        (START_NS + 3000, b"\xff\x00\xfe"),
        trade_at(START_NS + 4000, 2, ms=0),
        trade_at(START_NS + 5000, 3, ms=4_300_000_000_000),
        (START_NS + 6000, trade_at(0, 4)[1].replace('"1.5"', '"NaN"').replace('"T": 0', f'"T": {START_NS // 10**6}')),
        (START_NS + 7000, '{"result": null, "id": 1}'),
        trade_at(START_NS + 8000, 5),
    ]
    write_journal(folder, START_NS, frames)
    add_instrument(ingestor_dsn)
    load(folder, ingestor_dsn)
    assert ask(ingestor_dsn, "SELECT trade_id FROM trades ORDER BY 1") == [("1",), ("5",)]
    parked = ask(
        ingestor_dsn,
        "SELECT (extract(epoch FROM received_at) * 1e6)::bigint, reason, segment, line_offset > 0 AND line_length > 0"
        " FROM parked_frames ORDER BY line_offset",
    )
    name = next(folder.glob("*.zst")).name
    assert parked == [(START_NS // 1000 + n, "decode", name, True) for n in (2, 3, 6)]
    rejected = ask(
        ingestor_dsn,
        "SELECT event_time, channel, native_id, segment, event->>'trade_id' FROM rejected_events ORDER BY line_offset",
    )
    assert rejected == [
        ("0", "trades", "BTCUSDT", name, "2"),
        ("4300000000000000000", "trades", "BTCUSDT", name, "3"),
    ]
    assert ask(ingestor_dsn, "SELECT sum(parked), sum(rejected), sum(frames) FROM load_batches") == [(3, 2, 8)]
    assert_ledger(ingestor_dsn)


def test_book_updates_of_1970_and_2106_are_kept_by_reference_and_block_nothing(
    tmp_path: Path, ingestor_dsn: str
) -> None:
    folder = tmp_path / "binance"
    traffic = Traffic().add(20)
    dated = {5: 0, 12: 4_300_000_000_000}
    for number, ms in dated.items():
        at, payload = traffic.frames[3 * number + 2]
        update = json.loads(payload)
        update["data"]["E"] = ms
        traffic.frames[3 * number + 2] = at, json.dumps(update)
    write_journal(folder, traffic.epoch, traffic.frames)
    add_instrument(ingestor_dsn)
    load(folder, ingestor_dsn)
    rejected = ask(
        ingestor_dsn,
        "SELECT channel, native_id, line_offset > 0 AND line_length > 0, event_time::bigint / 1000000,"
        " (extract(epoch FROM received_at) * 1000000)::bigint, (event->>'first_id')::bigint,"
        " (event->>'last_id')::bigint, event->'bids', event->'asks' FROM rejected_events ORDER BY line_offset",
    )
    wanted = []
    for number, ms in dated.items():
        _, at, _, first, last, *sides = traffic.updates[number]
        bids, asks = ([list(level) for level in zip(*side, strict=True)] for side in (sides[:2], sides[2:]))
        wanted.append(("book_events", "BTCUSDT", True, ms, at, first, last, bids, asks))
    assert rejected == wanted
    traffic.updates = [row for number, row in enumerate(traffic.updates) if number not in dated]
    assert_holds(ingestor_dsn, traffic)
    assert ask(ingestor_dsn, "SELECT sum(parked), sum(rejected) FROM load_batches") == [(0, 2)]


def test_frames_of_an_unknown_instrument_load_once_it_appears(tmp_path: Path, ingestor_dsn: str) -> None:
    folder = tmp_path / "binance"
    traffic = Traffic().add(50)
    write_journal(folder, traffic.epoch, traffic.frames)
    load(folder, ingestor_dsn)
    assert count(ingestor_dsn, "trades") == 0
    assert ask(ingestor_dsn, "SELECT reason, count(*) FROM parked_frames GROUP BY 1") == [("unknown_instrument", 150)]
    assert count(ingestor_dsn, "coverage") == 0
    add_instrument(ingestor_dsn)
    load(folder, ingestor_dsn)
    assert_holds(ingestor_dsn, traffic)
    assert ask(ingestor_dsn, "SELECT count(*) FROM parked_frames WHERE resolved_batch IS NULL") == [(0,)]
    assert ask(ingestor_dsn, "SELECT channel, ended_by, ended_at IS NULL FROM coverage ORDER BY 1") == [
        ("quotes", "shutdown", False),
        ("trades", "shutdown", False),
    ]
    batches = count(ingestor_dsn, "load_batches")
    load(folder, ingestor_dsn)
    assert_holds(ingestor_dsn, traffic)
    assert count(ingestor_dsn, "load_batches") == batches


def test_frames_parked_by_another_decoder_are_tried_again_by_this_one(tmp_path: Path, ingestor_dsn: str) -> None:
    folder = tmp_path / "binance"
    write_journal(folder, START_NS, [trade_at(START_NS + 1000, 1), (START_NS + 2000, '{"e":"novelty"}')])
    add_instrument(ingestor_dsn)
    load(folder, ingestor_dsn)
    batches = count(ingestor_dsn, "load_batches")
    load(folder, ingestor_dsn)
    assert count(ingestor_dsn, "load_batches") == batches, "the same decoder tried the same frame again"
    ask_version = "SELECT b.decoder_version FROM parked_frames JOIN load_batches AS b USING (stream_id, batch)"
    with psycopg.connect(ingestor_dsn, autocommit=True) as connection:
        connection.execute("UPDATE load_batches SET decoder_version = 'older'")
    load(folder, ingestor_dsn)
    assert ask(ingestor_dsn, ask_version) == [(decoder("binance").version,)]
    assert count(ingestor_dsn, "load_batches") == batches + 1


def test_a_live_segment_is_followed_and_its_book_covered_from_the_bridge_on(tmp_path: Path, ingestor_dsn: str) -> None:
    folder = tmp_path / "binance"
    add_instrument(ingestor_dsn)
    traffic = Traffic(first_id=100).add(10)

    async def work() -> None:
        journal = JournalWriter(
            folder,
            stream="binance",
            exchange="binance",
            url="",
            ingestor="ing1",
            software={},
            epoch=traffic.epoch,
            clock=lambda: traffic.epoch,
        )
        await journal.open()
        journal.mark(Subscribed(traffic.epoch, "book_events", ["BTCUSDT"]))
        for at, payload in traffic.frames[:15]:
            journal.append(at, payload)
        journal.mark(snapshot_mark(traffic.frames[14][0], 203))
        await journal.commit()
        await asyncio.to_thread(load, folder, ingestor_dsn)
        assert count(ingestor_dsn, "trades") == 5
        assert ask(ingestor_dsn, "SELECT ended_by FROM connections") == [(None,)]
        for at, payload in traffic.frames[15:]:
            journal.append(at, payload)
        await journal.commit()
        journal.heartbeat(traffic.now + 5 * 10**9)
        await journal.commit()
        await asyncio.to_thread(load, folder, ingestor_dsn)
        reached = ask(ingestor_dsn, "SELECT (extract(epoch FROM alive_until) * 1e6)::bigint FROM connections")
        assert reached == [((traffic.now + 5 * 10**9) // 1000,)], "an idle loader left the time it knew unwritten"
        await journal.close("disconnect")

    asyncio.run(work())
    load(folder, ingestor_dsn)
    assert_holds_but_snapshots(ingestor_dsn, traffic)
    assert ask(
        ingestor_dsn,
        "SELECT (extract(epoch FROM started_at) * 1e6)::bigint, (extract(epoch FROM ended_at) * 1e6)::bigint,"
        " first_id, last_id, ended_by FROM coverage WHERE channel = 'book_events'",
    ) == [
        (
            traffic.frames[14][0] // 1000,
            (traffic.now + 5 * 10**9) // 1000,
            "203",
            str(traffic.updates[-1][4]),
            "disconnect",
        )
    ]


def assert_holds_but_snapshots(dsn: str, traffic: Traffic) -> None:
    assert_holds(dsn, traffic)
    assert ask(dsn, "SELECT count(*) FROM book_events WHERE is_snapshot") == [(1,)]


def test_a_stream_has_one_writer(tmp_path: Path, ingestor_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "binance"
    traffic = Traffic().add(5)
    write_journal(folder, traffic.epoch, traffic.frames)
    add_instrument(ingestor_dsn)
    monkeypatch.setattr("collectors.load.loader._PATIENCE_SECONDS", 0.1)
    with Database(ingestor_dsn, "ing1", "binance", decoder("binance")) as other:
        assert other.try_lock()
        with pytest.raises(StreamTakenError, match="stop that one first"):
            Loader(folder, ingestor_dsn, "ing1", decoder("binance")).run(until_idle=True)
        assert count(ingestor_dsn, "load_batches") == 0
    load(folder, ingestor_dsn)
    assert_holds(ingestor_dsn, traffic)


def test_a_database_that_drops_its_connections_is_waited_for(tmp_path: Path, ingestor_dsn: str) -> None:
    folder = tmp_path / "binance"
    traffic = Traffic().add(8_000)
    write_journal(folder, traffic.epoch, traffic.frames)
    add_instrument(ingestor_dsn)
    loader = start_loader(folder, ingestor_dsn)
    dropped = 0
    seen = 0
    while dropped < 5:
        seen = until_more(ingestor_dsn, "SELECT count(*) FROM load_batches", seen, loader)
        assert loader.poll() is None, "finished before it was disturbed often enough"
        dropped += ask(
            ingestor_dsn,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'cryptopip load%'",
        )[0][0]
    output, _ = loader.communicate(timeout=120)
    assert loader.returncode == 0, output.decode()
    assert output.count(b"will start over") >= 3
    assert_holds(ingestor_dsn, traffic)


def test_a_loader_told_to_stop_ends_cleanly_and_the_next_goes_on(tmp_path: Path, ingestor_dsn: str) -> None:
    folder = tmp_path / "binance"
    traffic = Traffic().add(6_000)
    write_journal(folder, traffic.epoch, traffic.frames)
    add_instrument(ingestor_dsn)
    configuration = tmp_path / "cryptopip.yml"
    configuration.write_text(
        f"ingestor: ing1\njournal: {tmp_path}\nuniverse: {tmp_path}/u.yml\ndatabase: {ingestor_dsn}\n"
        "exchanges: {binance: {rest: null, ws: null}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "collectors", "load", "binance", "--config", str(configuration)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    until_more(ingestor_dsn, "SELECT count(*) FROM trades", 0, process)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"rows of" in output
    assert_ledger(ingestor_dsn)
    load(folder, ingestor_dsn)
    assert_holds(ingestor_dsn, traffic)
