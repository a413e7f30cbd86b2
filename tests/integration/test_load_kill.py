"""A loader that is killed, again and again."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from collectors.journal import Limits
from tests.integration.load_harness import (
    Traffic,
    add_instrument,
    ask,
    assert_holds,
    count,
    load,
    start_loader,
    until_more,
    write_journal,
)

KILLS = 20


@pytest.mark.database
@pytest.mark.parametrize("seed", [20261123])
def test_a_loader_killed_at_twenty_random_points_neither_loses_nor_doubles(
    seed: int, tmp_path: Path, ingestor_dsn: str
) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "binance"
    # Two connections, the first over several segments, the second one's recorder killed.
    first = Traffic().add(20_000)
    second = Traffic(epoch=first.now + 10**9, first_id=first.id).add(20_000)
    write_journal(folder, first.epoch, first.frames, limits=Limits(frame_bytes=256 << 10, segment_bytes=128 << 10))
    write_journal(folder, second.epoch, second.frames, close=None, limits=Limits(frame_bytes=256 << 10))
    assert len(list(folder.glob("*.zst"))) >= 4
    add_instrument(ingestor_dsn)

    killed, seen = 0, 0
    for _ in range(KILLS):
        loader = start_loader(folder, ingestor_dsn)
        until_more(ingestor_dsn, "SELECT count(*) FROM load_batches", seen, loader)
        try:
            loader.wait(rng.uniform(0, 0.06))
        except subprocess.TimeoutExpired:  # still at work, as hoped
            loader.kill()
            killed += 1
        loader.wait()
        seen = count(ingestor_dsn, "load_batches")
    loaded = count(ingestor_dsn, "trades")
    assert killed == KILLS, "a loader had finished: this run proved less than it says"
    assert 0 < loaded < len(first.trades) + len(second.trades), "hardly interrupted: this run proved nothing"

    load(folder, ingestor_dsn)
    assert_holds(ingestor_dsn, first, second)
    assert ask(ingestor_dsn, "SELECT count(*) FROM parked_frames") == [(0,)]
    # A loader's death is no gap: one interval each, from the acknowledgement to the last sign of life.
    assert ask(
        ingestor_dsn,
        "SELECT epoch, channel, (extract(epoch FROM lower(interval)) * 1e6)::bigint * 1000,"
        " (extract(epoch FROM upper(interval)) * 1e6)::bigint, first_id, last_id, ended_by"
        " FROM coverage_intervals ORDER BY epoch, channel",
    ) == [
        (one.epoch, channel, one.epoch // 1000 * 1000, one.now // 1000, str(ids[0]), str(ids[1]), ended_by)
        for one, ended_by in ((first, "shutdown"), (second, "crash"))
        for channel, ids in (
            ("quotes", (one.quotes[0][2], one.quotes[-1][2])),
            ("trades", (one.trades[0][3], one.trades[-1][3])),
        )
    ]

    before = count(ingestor_dsn, "load_batches")
    load(folder, ingestor_dsn)
    assert count(ingestor_dsn, "load_batches") == before, "a loader with nothing to do wrote a batch"
