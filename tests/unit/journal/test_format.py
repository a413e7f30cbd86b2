"""Lines of the journal."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.journal import (
    Close,
    Commit,
    Gap,
    Header,
    JournalError,
    Snapshot,
    Subscribed,
    is_mark,
    lines,
    parse_frame,
    parse_mark,
)
from collectors.journal.format import crc_of, encode_commit, encode_lines, encode_mark

PAYLOADS = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(
        [b"", b"base64:", b"base64:AAAA", b"a\nb", b"a\r", b"{}", b'{"mark":"commit",', b"\xff", b" base64:"]
    ),
)


@given(st.lists(st.tuples(st.integers(0, 1 << 62), PAYLOADS)))
def test_every_payload_comes_back_as_it_was(frames: list[tuple[int, bytes]]) -> None:
    data, count = encode_lines([(recv_ns, [payload]) for recv_ns, payload in frames])
    assert count == len(frames)
    assert [parse_frame(line) for _, line in lines(data, 0)] == frames
    assert not any(is_mark(line) for _, line in lines(data, 0))
    data.decode()  # and the journal stays text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_its_utf8(text: str) -> None:
    line, _ = encode_lines([(7, [text.encode()])])
    assert [parse_frame(each) for _, each in lines(line, 0)] == [(7, text.encode())]


@given(st.lists(st.tuples(st.integers(0, 1 << 62), st.lists(PAYLOADS))))
def test_frames_received_together_are_lines_of_the_same_time(batches: list[tuple[int, list[bytes]]]) -> None:
    data, count = encode_lines(batches)
    assert [parse_frame(line) for _, line in lines(data, 0)] == [(at, one) for at, many in batches for one in many]
    assert count == sum(len(many) for _, many in batches)


def test_halves_of_a_character_in_two_frames_are_no_text() -> None:
    halves = [b"\xc3", b"\xa9"]
    data, _ = encode_lines([(7, halves)])
    data.decode()
    assert [parse_frame(line) for _, line in lines(data, 0)] == [(7, half) for half in halves]


def test_offsets_of_lines_are_where_they_start() -> None:
    data = b"1 a\n\n22 bb\n"
    assert [(offset, data[offset - 5 : offset - 5 + len(line)]) for offset, line in lines(data, 5)] == [
        (5, b"1 a"),
        (9, b""),
        (10, b"22 bb"),
    ]


@pytest.mark.parametrize(
    "mark",
    [
        Header(1, "binance", "binance", "wss://x", "ing1", 5, 0, {"ccxt": "4"}),
        Subscribed(2, "trades", ["BTCUSDT", "ETHUSDT"]),
        Gap(3, "book_events", "BTCUSDT", 10, 12),
        Snapshot(4, "book_events", "BTCUSDT", "https://x", 3, '{"lastUpdateId":1,\n"bids":[]}'),
        Close(5, "rotate"),
    ],
)
def test_marks_come_back_and_stand_between_frames(mark: Header | Subscribed | Gap | Snapshot | Close) -> None:
    data, _ = encode_lines([(1, [b"a\nb"]), encode_mark(mark).encode(), (2, [b"c"])])
    found = [line for _, line in lines(data, 0)]
    assert len(found) == 3
    assert is_mark(found[1])
    assert parse_mark(found[1]) == mark


def test_a_commit_vouches_for_its_own_fields_too() -> None:
    group = b"1 a\n2 b\n"
    line = encode_commit(crc32(group), at=9, alive=8, lines=2, offset=77)[:-1]
    mark = parse_mark(line)
    assert mark == Commit(9, 8, 2, 77, crc_of(memoryview(group), line))
    forged = line.replace(b'"alive":8', b'"alive":9')
    assert crc_of(memoryview(group), forged) != mark.crc


@pytest.mark.parametrize("line", [b"", b"abc", b"12", b"x y", b"1 base64:?"])
def test_what_is_no_frame_is_refused_with_what_was_expected(line: bytes) -> None:
    with pytest.raises(JournalError, match="expected '<recv_ns> <payload>'"):
        parse_frame(line)


@pytest.mark.parametrize("line", [b"{}", b'{"mark":"party","at":1}', b'{"mark":"close","at":1,"reason":"boredom"}'])
def test_an_unknown_mark_is_refused(line: bytes) -> None:
    with pytest.raises(JournalError, match="not a mark"):
        parse_mark(line)
