"""Writing: rotation, back-pressure, disks that take nothing, processes that are killed."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from collectors.journal import (
    Header,
    JournalWriter,
    Limits,
    is_mark,
    is_writer_alive,
    lines,
    next_epoch,
    parse_frame,
    parse_mark,
    segment_of,
    segments,
)
from collectors.journal.verify import verify
from tests.conftest import ROOT
from tests.unit.journal.helpers import read, write, writer


def payloads_of(folder: Path) -> list[bytes]:
    groups = (group for path in segments(folder) for group in read(path)[0])
    found = (line for group in groups for _, line in lines(group.data, group.start))
    return [parse_frame(line)[1] for line in found if not is_mark(line)]


def test_an_epoch_rotates_into_segments_that_each_open_with_a_header(tmp_path: Path) -> None:
    rng = random.Random(1)
    groups = [[rng.randbytes(100).hex() for _ in range(10)] for _ in range(20)]
    write(tmp_path / "binance", groups, limits=Limits(segment_bytes=2000))
    paths = segments(tmp_path / "binance")
    assert len(paths) > 3
    assert [segment_of(path).seq for path in paths] == list(range(len(paths)))
    assert [verify(path).reason for path in paths] == ["rotate"] * (len(paths) - 1) + ["shutdown"]
    for number, path in enumerate(paths):
        header = parse_mark(next(lines(read(path)[0][0].data, 0))[1])
        assert isinstance(header, Header)
        assert (header.segment, header.epoch) == (number, segment_of(path).epoch)
    assert payloads_of(tmp_path / "binance") == [payload.encode() for group in groups for payload in group]


def test_an_epoch_that_is_closed_right_after_a_rotation_is_closed_in_its_next_segment(tmp_path: Path) -> None:
    write(tmp_path / "binance", [["a"]], limits=Limits(segment_bytes=1))
    assert [verify(path).reason for path in segments(tmp_path / "binance")][-2:] == ["rotate", "shutdown"]


async def test_a_full_buffer_says_so_and_room_comes_with_the_commit(tmp_path: Path) -> None:
    journal = writer(tmp_path / "binance", Limits(buffer_bytes=1000, early_bytes=100))
    await journal.open()
    while not journal.is_full:
        journal.append(1, "x" * 50)
    waiting = asyncio.create_task(journal.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert journal.fill >= 1
    await journal.commit()
    await waiting
    assert journal.fill == 0
    await journal.close("shutdown")


async def test_a_heartbeat_alone_is_committed_and_silence_is_not(tmp_path: Path) -> None:
    journal = writer(tmp_path / "binance")
    await journal.open()
    journal.append(5, "a")
    await journal.commit()
    journal.heartbeat(9)
    await journal.commit()
    await journal.commit()
    path = segments(tmp_path / "binance")[0]
    assert [group.alive for group in read(path)[0]][1:] == [5, 9]
    assert journal.durable_alive == 9
    await journal.close("shutdown")


async def test_the_commit_loop_commits_by_itself(tmp_path: Path) -> None:
    journal = writer(tmp_path / "binance")
    journal.commit_interval = 0.01
    await journal.open()
    loop = asyncio.create_task(journal.run())
    journal.append(5, "a")
    async with asyncio.timeout(10):
        while journal.durable_alive != 5:  # noqa: ASYNC110  the writer has no event for it, and needs none
            await asyncio.sleep(0.005)
    assert payloads_of(tmp_path / "binance") == [b"a"]
    loop.cancel()
    await journal.close("shutdown")


async def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC after a partial write: the bytes are kept and written to the same place once there is room."""
    journal = writer(tmp_path / "binance")
    await journal.open()
    real, left = os.pwrite, [40]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, data[: left[0]], offset)
        left[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", pwrite)
    for number in range(30):
        journal.append(number, f"{number:050}")
        if number % 10 == 9:
            with pytest.raises(OSError, match="No space left"):
                await journal.commit()
            assert journal.durable_alive == 0
    assert journal.failing_since is not None
    assert journal.fill > 0
    left[0] = 1 << 30
    await journal.commit()
    assert journal.failing_since is None
    assert (journal.fill, journal.durable_alive) == (0, 29)
    await journal.close("shutdown")
    assert payloads_of(tmp_path / "binance") == [f"{number:050}".encode() for number in range(30)]
    assert verify(segments(tmp_path / "binance")[0]).is_whole


async def test_a_close_that_the_disk_refused_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = writer(tmp_path / "binance")
    await journal.open()
    journal.append(1, "a")

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            await journal.close("disk")
    await journal.close("disk")
    assert verify(segments(tmp_path / "binance")[0]).reason == "disk"
    assert payloads_of(tmp_path / "binance") == [b"a"]


async def test_a_cancelled_commit_still_counts(tmp_path: Path) -> None:
    journal = writer(tmp_path / "binance")
    await journal.open()
    journal.append(3, "a")
    task = asyncio.create_task(journal.commit())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await journal.close("shutdown")
    assert journal.fill == 0
    assert payloads_of(tmp_path / "binance") == [b"a"]


async def test_a_segment_shows_its_writer_alive_until_it_is_closed(tmp_path: Path) -> None:
    journal = writer(tmp_path / "binance")
    await journal.open()
    path = segments(tmp_path / "binance")[0]
    assert is_writer_alive(path)
    await journal.close("shutdown")
    assert not is_writer_alive(path)


async def test_opening_never_touches_an_old_segment(tmp_path: Path) -> None:
    path = await asyncio.to_thread(write, tmp_path / "binance", [["a"]])
    before = path.read_bytes()
    second = writer(tmp_path / "binance")  # the same epoch once more
    with pytest.raises(FileExistsError):
        await second.open()
    assert path.read_bytes() == before
    assert [each.name for each in (tmp_path / "binance").iterdir()] == [path.name]


def test_epochs_grow_even_where_the_clock_was_set_back(tmp_path: Path) -> None:
    late = time.time_ns() + 10**15
    (tmp_path / "binance").mkdir()
    (tmp_path / "binance" / f"{late}-000000.journal.zst").touch()
    assert next_epoch(tmp_path) == late + 1
    assert next_epoch(tmp_path / "empty") <= time.time_ns()


CHILD = """
    import asyncio, sys
    from pathlib import Path
    from collectors.journal import JournalWriter, Limits

    async def main():
        journal = JournalWriter(Path(sys.argv[1]), stream="binance", exchange="binance", url="", ingestor="i",
                                software={}, limits=Limits(frame_bytes=20_000, segment_bytes=60_000))
        await journal.open()
        number = 0
        while True:
            for _ in range(50):
                journal.append(number + 1, f"{number:060}")
                number += 1
            await journal.commit()
            print(number, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_keeps_all_it_acknowledged(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "binance"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for _ in range(5 + 13 * seed):
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    acknowledged = int(([str(acknowledged), *child.stdout.read().split()])[-1])
    child.wait()
    assert child.returncode == -signal.SIGKILL
    found = payloads_of(folder)
    assert len(found) >= acknowledged > 0
    assert found == [f"{number:060}".encode() for number in range(len(found))]
    last = segments(folder)[-1]
    assert not is_writer_alive(last)
    assert verify(last).state == "crashed"


def test_a_segment_is_never_seen_unlocked_or_without_its_header(tmp_path: Path) -> None:
    """Whoever lists the folder while segments are made finds each with a whole header and its writer alive."""

    async def work() -> None:
        for epoch in range(1, 40):
            journal = writer(tmp_path / "binance", epoch=epoch)
            opening = asyncio.create_task(journal.open())
            while not opening.done():
                for path in segments(tmp_path / "binance")[epoch - 1 :]:
                    assert is_writer_alive(path)
                    assert read(path)[0]
                await asyncio.sleep(0)
            await opening
            await journal.abandon()

    asyncio.run(work())


def test_the_writer_is_typed_for_others(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "b", stream="b", exchange="b", url="", ingestor="i", software={})
    assert journal.epoch > 0
    assert not (tmp_path / "b").exists(), "nothing is made before open"
