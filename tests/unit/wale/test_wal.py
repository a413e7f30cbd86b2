"""Names and headers of WAL: what decides whether a file may enter the archive, and what a verification looks for."""

from __future__ import annotations

import pytest
from cryptopip_wale import wal
from cryptopip_wale.errors import WaleError
from hypothesis import given
from hypothesis import strategies as st

MEGABYTES = 16 << 20


def test_a_segment_tells_its_system_identifier_and_its_place() -> None:
    head = wal._HEADER.pack(0xD116, wal._LONG_HEADER, 1, 0x3000000, 0, 7445566778899)
    assert wal.segment_header(head) == ("7445566778899", 0x3000000)


@pytest.mark.parametrize("head", [b"", b"\0" * 40, wal._HEADER.pack(0xD116, 2, 1, 0, 0, 1)[:-1]])
def test_what_is_no_segment_is_refused(head: bytes) -> None:
    with pytest.raises(WaleError, match="header of a WAL segment"):
        wal.segment_header(head)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "0" * 23, "0" * 24 + "/x", "RECOVERYXLOG", "00000001.history\n", ""]
)
def test_no_name_leaves_the_archive(name: str) -> None:
    with pytest.raises(WaleError, match="expected a WAL segment"):
        wal.require_archivable(name)


@pytest.mark.parametrize("name", ["0" * 24, "0" * 24 + ".partial", "0" * 24 + ".00000028.backup", "00000002.history"])
def test_all_that_a_server_archives_is_taken(name: str) -> None:
    wal.require_archivable(name)


def test_segments_cross_a_log_file() -> None:
    assert list(wal.segments(2, 0xFF, 0x100, MEGABYTES)) == ["0000000200000000000000FF", "000000020000000100000000"]


@given(st.integers(0, 1 << 40), st.sampled_from([1 << 20, MEGABYTES, 1 << 30]), st.integers(1, 0xFFFFFFFF))
def test_a_segments_name_tells_its_number(number: int, size: int, timeline: int) -> None:
    number %= (1 << 64) // size
    (name,) = wal.segments(timeline, number, number, size)
    assert wal.segment_number(name, size) == number
    assert int(name[:8], 16) == timeline
