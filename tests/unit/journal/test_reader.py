"""What was committed comes back, whatever happened to the file behind or around it."""

from __future__ import annotations

import asyncio
import gzip
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.journal import (
    Damage,
    Group,
    JournalError,
    Limits,
    Position,
    SegmentReader,
    lines,
    parse_frame,
    read_capture,
    segments,
)
from collectors.journal.format import is_mark
from collectors.journal.verify import verify
from tests.unit.journal.helpers import SMALL_FRAMES, read, write, writer

GROUPS = [
    [f'{{"group":{group},"line":{line},"noise":"{hash((group, line)):x}"}}' for line in range(group % 4)]
    for group in range(16)
]


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segment of several zstd frames with several groups each, closed."""
    return write(tmp_path_factory.mktemp("journal") / "binance", GROUPS, limits=SMALL_FRAMES)


def frames_of(groups: list[Group]) -> list[bytes]:
    found = (line for group in groups for _, line in lines(group.data, group.start))
    return [parse_frame(line)[1] for line in found if not is_mark(line)]


def test_all_that_was_written_is_read(segment: Path) -> None:
    groups, damages = read(segment)
    assert frames_of(groups) == [payload.encode() for group in GROUPS for payload in group]
    assert damages == []
    assert len({group.end.frame for group in groups}) > 4, "too few zstd frames to prove anything below"


def test_groups_follow_each_other_without_a_hole(segment: Path) -> None:
    groups, _ = read(segment)
    for one, two in pairwise(groups):
        assert one.start + len(one.data) < two.start == one.end.line_offset


def test_a_segment_cut_at_any_byte_gives_exactly_the_groups_committed_before_the_cut(
    segment: Path, tmp_path: Path
) -> None:
    whole, _ = read(segment)
    content = segment.read_bytes()
    cut = tmp_path / segment.name
    seen = set()
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        groups, damages = read(cut)
        assert [(group.data, group.start) for group in groups] == [(g.data, g.start) for g in whole[: len(groups)]]
        seen.add(len(groups))
        torn = damages[0].from_byte if damages else size
        assert len(damages) <= 1
        # What is told as torn is exactly what follows the last group: without it the file is whole.
        cut.write_bytes(content[:torn])
        again, none = read(cut)
        assert (again, none) == (groups, [])
    assert seen == set(range(len(whole))), "every number of groups must have been reached"


def test_resuming_after_any_group_gives_exactly_those_behind_it(segment: Path) -> None:
    whole, _ = read(segment)
    for index, group in enumerate(whole):
        rest, damages = read(segment, group.end)
        assert [(each.data, each.start, each.end) for each in rest] == [
            (g.data, g.start, g.end) for g in whole[index + 1 :]
        ]
        assert damages == []


def test_resuming_within_a_group_gives_the_lines_behind_the_position(segment: Path) -> None:
    whole, _ = read(segment)
    group = max(whole[1:], key=lambda each: each.data.count(b"\n"))
    offset, _ = list(lines(group.data, group.start))[1]
    rest, _ = read(segment, Position(0, 0, offset))
    assert rest[0].start == offset
    assert rest[0].data == group.data[offset - group.start :]


def frame_bounds(groups: list[Group], size: int) -> list[int]:
    return [*sorted({group.end.frame for group in groups} | {0}), size]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_costs_only_its_own_zstd_frame_and_is_told_with_its_place(
    segment: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole, _ = read(segment)
    content = segment.read_bytes()
    bounds = frame_bounds(whole, len(content))
    start = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=40))
    kind = data.draw(st.sampled_from(["overwrite", "insert", "delete"]))
    if kind == "overwrite":
        damaged = content[:start] + damage + content[start + len(damage) :]
        damaged = damaged[: max(len(content), start + len(damage))]
    elif kind == "insert":
        damaged = content[:start] + damage + content[start:]
    else:
        damaged = content[:start] + content[start + len(damage) :]
    path = tmp_path / segment.name
    path.write_bytes(damaged)

    groups, damages = read(path)

    last = start if kind == "insert" else min(start + len(damage), len(content)) - 1
    hit = [(lo, hi) for lo, hi in pairwise(bounds) if lo <= last and start < hi]
    if kind == "insert" and start in bounds:
        hit = hit[:0]
    untouched = [
        group
        for group, zstd_frame in zip(whole, home_frames(whole), strict=True)
        if not any(lo <= zstd_frame < hi for lo, hi in hit)
    ]
    got = {(group.start, group.data) for group in groups}
    assert {(group.start, group.data) for group in untouched} <= got
    assert got <= {(group.start, group.data) for group in whole}, "something was read that was never written"
    assert [group.start for group in groups] == sorted({group.start for group in groups}), "in order, none twice"
    if damaged != content and len(groups) < len(whole):
        # A byte that what follows it happens to replace by its like is no damage.
        first = next((at for at, (a, b) in enumerate(zip(damaged, content, strict=False)) if a != b), len(damaged))
        assert any(each.from_byte <= first <= each.to_byte for each in damages), (damages, first)
    for each in damages:
        assert 0 <= each.from_byte <= each.to_byte <= len(damaged)


def home_frames(groups: list[Group]) -> list[int]:
    """Byte at which the zstd frame that holds each group starts."""
    homes, at = [], 0
    for group in groups:
        homes.append(at if group.end.frame_offset == group.end.line_offset else group.end.frame)
        at = group.end.frame
    return homes


def test_reading_on_after_damage_from_a_position_tells_it_no_second_time(segment: Path, tmp_path: Path) -> None:
    whole, _ = read(segment)
    bounds = frame_bounds(whole, 0)
    content = bytearray(segment.read_bytes())
    content[bounds[1] + 20 : bounds[1] + 30] = bytes(10)
    path = tmp_path / segment.name
    path.write_bytes(content)
    groups, damages = read(path)
    assert len(damages) == 1
    behind = next(index for index, group in enumerate(groups) if group.start > groups[index - 1].end.line_offset > 0)
    for group in groups[behind:]:
        rest, again = read(path, group.end)
        assert [each.start for each in rest] == [each.start for each in groups if each.start > group.start]
        assert again == []


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    """Groups arrive as they are committed, over the ends of zstd frames, and never before their commit."""
    rng = random.Random(5)

    async def work() -> None:
        journal = writer(tmp_path / "binance", Limits(frame_bytes=4000))
        await journal.open()
        with SegmentReader(segments(tmp_path / "binance")[0]) as reader:
            assert len(list(reader.read())) == 1  # the header
            for number in range(200):
                payloads = [rng.randbytes(rng.randrange(400)) for _ in range(rng.randrange(1, 5))]
                for payload in payloads:
                    journal.append(number, payload)
                assert list(reader.read()) == []
                await journal.commit()
                (group,) = reader.read()
                assert isinstance(group, Group)
                assert [parse_frame(line)[1] for _, line in lines(group.data, 0)] == payloads
            await journal.close("handover")
            list(reader.read())
            assert reader.close_mark is not None
            assert reader.close_mark.reason == "handover"
            assert reader.torn_tail() is None

    asyncio.run(work())


def test_a_reader_follows_a_file_that_grows_byte_by_byte(segment: Path, tmp_path: Path) -> None:
    content = segment.read_bytes()
    path = tmp_path / segment.name
    path.touch()
    found: list[Group | Damage] = []
    with SegmentReader(path) as reader, path.open("ab", buffering=0) as file:
        for byte in content:
            file.write(bytes([byte]))
            found += reader.read()
    assert found == read(segment)[0]


def test_a_damaged_middle_of_a_growing_file_is_told_once_its_next_zstd_frame_is_there(
    segment: Path, tmp_path: Path
) -> None:
    whole, _ = read(segment)
    bounds = frame_bounds(whole, segment.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[bounds[1] : bounds[1] + 4] = b"junk"
    path = tmp_path / segment.name
    path.touch()
    found: list[Group | Damage] = []
    with SegmentReader(path) as reader, path.open("ab", buffering=0) as file:
        for start in range(0, len(content), 7):
            file.write(content[start : start + 7])
            found += reader.read()
        assert reader.torn_tail() is None
    assert [each for each in found if isinstance(each, Damage)] == read_damages(path)
    assert [(bounds[1], bounds[2])] == [(each.from_byte, each.to_byte) for each in found if isinstance(each, Damage)]


def read_damages(path: Path) -> list[Damage]:
    return read(path)[1]


def test_large_groups_of_many_blocks_are_read(tmp_path: Path) -> None:
    rng = random.Random(1)
    payloads = [rng.randbytes(5000).hex() for _ in range(300)]
    path = write(tmp_path / "binance", [payloads], limits=Limits(frame_bytes=1 << 30))
    assert path.stat().st_size > 1 << 20
    assert frames_of(read(path)[0]) == [payload.encode() for payload in payloads]


def test_verify_tells_whole_crashed_and_damaged(segment: Path, tmp_path: Path) -> None:
    verdict = verify(segment)
    assert (verdict.is_whole, verdict.state, verdict.reason) == (True, "closed", "shutdown")
    assert (verdict.frames, verdict.first) == (sum(map(len, GROUPS)), 1000)
    crashed = write(tmp_path / "crashed" / "binance", GROUPS, close=None)
    assert (verify(crashed).state, verify(crashed).is_whole) == ("crashed", True)
    copy = tmp_path / segment.name
    shutil.copy(segment, copy)
    with copy.open("r+b") as file:
        file.seek(500)
        file.write(bytes(50))
    verdict = verify(copy)
    assert not verdict.is_whole
    assert any(damage.from_byte <= 500 < damage.to_byte for damage in verdict.damages)


def test_a_missing_segment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SegmentReader(tmp_path / "1-000000.journal.zst")


@pytest.mark.captures
def test_hftbacktest_captures_are_read_as_they_are(captures: Path) -> None:
    path = captures / "hftbacktest" / "spot_ethusdt_20240809.gz"
    with gzip.open(path) as file:
        raw = file.read().splitlines()
    frames = list(read_capture(path))
    assert [b"%d %b" % frame for frame in frames] == raw


def test_a_capture_with_a_line_that_is_none_says_which(tmp_path: Path) -> None:
    path = tmp_path / "broken.gz"
    path.write_bytes(gzip.compress(b"1 a\nnonsense\n"))
    with pytest.raises(JournalError, match="line 2"):
        list(read_capture(path))
