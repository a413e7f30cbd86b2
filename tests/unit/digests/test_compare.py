"""Two histories compared: every hour that differs, and no other, whatever the histories are."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.digests import Digest, Summary, Window, compare
from collectors.digests.model import DigestFileError, read_digests, write_digests
from collectors.errors import CryptopipError, UsageError

T0 = datetime(2026, 11, 1, tzinfo=UTC)


def digest(key: tuple[str, int, int], content: tuple[int, int], native_id: str = "X") -> Digest:
    channel, instrument, hour = key
    rows, hashed = content
    return Digest(channel, instrument, T0 + timedelta(hours=hour), rows, str(hashed), "binance", native_id)


def history(contents: dict[tuple[str, int, int], tuple[int, int]]) -> list[Digest]:
    found = [digest(key, content) for key, content in contents.items()]
    return sorted(found, key=lambda one: one.key)


KEYS = st.tuples(st.sampled_from(["book_events", "quotes", "trades"]), st.integers(1, 3), st.integers(0, 3))
HISTORIES = st.dictionaries(KEYS, st.tuples(st.integers(0, 2), st.integers(-2, 2)))


@given(HISTORIES, HISTORIES)
def test_the_hours_that_differ_are_named_and_no_others(
    a: dict[tuple[str, int, int], tuple[int, int]], b: dict[tuple[str, int, int], tuple[int, int]]
) -> None:
    one = {found.key: found for found in history(a) if found.rows}
    other = {found.key: found for found in history(b) if found.rows}
    wanted = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    summary = Summary()
    found = list(compare(history(a), history(b), summary))
    assert [difference.what.key for difference in found] == wanted
    assert [(difference.a, difference.b) for difference in found] == [(one.get(key), other.get(key)) for key in wanted]
    assert summary == Summary(
        len(one.keys() | other.keys()),
        sum(each.rows for each in one.values()),
        sum(each.rows for each in other.values()),
        len(wanted),
    )


@given(HISTORIES)
def test_a_file_gives_back_what_was_written(contents: dict[tuple[str, int, int], tuple[int, int]]) -> None:
    file = io.BytesIO()
    written = write_digests(history(contents), file)
    assert written == len(contents)
    file.seek(0)
    assert list(read_digests(file, "x")) == history(contents)


def test_ids_that_mean_different_instruments_are_no_comparison() -> None:
    key, content = ("trades", 1, 0), (1, 1)
    with pytest.raises(CryptopipError, match="instrument 1 is BTCUSDT of binance in A and ETHUSDT of binance in B"):
        list(compare([digest(key, content, "BTCUSDT")], [digest(key, content, "ETHUSDT")], Summary()))


GOOD = (
    b'{"channel":"trades","instrument_id":1,"hour":"2026-11-01T00:00:00Z","rows":1,"hash":"5"'
    b',"exchange":"b","native_id":"X"}\n'
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, GOOD], "line 2: trades of instrument 1 at 2026-11-01T00:00:00\\+00:00 comes twice or out of order"),
        ([b"{}\n"], "line 1: Object missing required field `channel`"),
        ([GOOD[:40]], "line 1: Input data was truncated"),
        ([GOOD.replace(b"00:00Z", b"30:00Z")], "line 1: hour 2026-11-01T00:30:00\\+00:00, expected a full hour"),
        ([GOOD.replace(b'00Z"', b'00"')], "line 1: hour 2026-11-01T00:00:00, expected a full hour with a zone"),
        ([GOOD.replace(b'"rows":1', b'"rows":"many"')], "line 1: Expected `int`"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_with_its_place(lines: list[bytes], said: str) -> None:
    with pytest.raises(DigestFileError, match=said):
        list(read_digests(lines, "x"))


@pytest.mark.parametrize(
    ("since", "until", "channel", "said"),
    [
        (T0 + timedelta(minutes=1), None, None, "since is 2026-11-01T00:01:00\\+00:00, expected a full hour"),
        (T0, T0, None, "until 2026-11-01T00:00:00\\+00:00 is not after since"),
        (None, None, "trade", "channel 'trade', expected one of book_events, "),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(
    since: datetime | None, until: datetime | None, channel: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Window(since, until, None, channel)
