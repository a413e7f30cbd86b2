"""Which segments make up an epoch, wherever they and their copies lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import UsageError
from collectors.journal import Limits
from collectors.rebuild.plan import lives_of, missing_of
from tests.integration.load_harness import START_NS, Traffic, write_journal


@given(st.sets(st.integers(0, 40), min_size=1))
def test_missing_numbers_are_those_below_the_last_that_are_not_there(numbers: set[int]) -> None:
    missing = missing_of(sorted(numbers))
    assert not numbers & set(missing)
    assert numbers | set(missing) == set(range(max(numbers) + 1))


def test_epochs_come_oldest_first_and_the_longest_copy_of_a_segment_counts(tmp_path: Path) -> None:
    one, other = tmp_path / "one" / "binance", tmp_path / "other"
    traffic = Traffic().add(600)
    write_journal(one, START_NS + 5, Traffic(START_NS + 5).add(3).frames)
    limits = Limits(frame_bytes=64 << 10, segment_bytes=20 << 10)
    write_journal(one, traffic.epoch, traffic.frames, group=100, limits=limits)
    shutil.copytree(one, other / "copy")
    torn = other / "copy" / f"{traffic.epoch}-000000.journal.zst"
    torn.write_bytes(torn.read_bytes()[:-10])
    (one / f"{traffic.epoch}-000001.journal.zst").write_bytes(b"not zstd at all")  # whose it is, its folder tells
    first, second = lives_of([other, tmp_path / "one"])
    assert (first.epoch, second.epoch) == (traffic.epoch, START_NS + 5)
    assert (first.ingestor, first.stream, first.exchange, first.missing) == ("ing1", "binance", "binance", ())
    assert first.paths[0].parent == one
    assert first.paths[1].parent == other / "copy"
    assert len({first.incarnation, second.incarnation}) == 2


def test_folders_without_a_readable_segment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no segment"):
        lives_of([tmp_path])
    (tmp_path / f"{START_NS}-000000.journal.zst").write_bytes(b"garbage")
    with pytest.raises(UsageError, match="nothing tells whose"):
        lives_of([tmp_path])
