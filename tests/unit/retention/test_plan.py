"""What keeps chunks and segments: each reason alone, and which of them yield to disk pressure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.events import CHANNELS
from collectors.retention.cli import said_bytes
from collectors.retention.plan import (
    Chunk,
    Held,
    Load,
    Parked,
    SegmentFile,
    State,
    StreamState,
    keeps_chunk,
    keeps_segment,
    relieving,
)

DAY = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHUNK = Chunk("trades", DAY, DAY + 24 * HOUR, 1000)
FILE = SegmentFile(1, "s1", 10, DAY + 2 * HOUR)
KEPT = {(1, "s1")}
STATE = State(
    now=DAY + timedelta(days=30),
    protected_until=DAY + timedelta(days=20),
    streams={1: StreamState(1, "ing1/binance", watermark=9, sure=9, numbered=frozenset())},
    loads=[Load(1, "s1", 9, DAY + HOUR, DAY + 2 * HOUR, dict.fromkeys(CHANNELS, 0) | {"trades": 5})],
    parked=[],
    done={(1, "s1")},
    damaged=set(),
    pending=[],
    pruned={"trades": [(DAY, DAY + 24 * HOUR)]},
)


def stream(**changed: object) -> dict[int, StreamState]:
    return {1: replace(STATE.streams[1], **changed)}


def reload_at(hours: int) -> list[tuple[datetime, datetime]]:
    return [(DAY + hours * HOUR, DAY + (hours + 1) * HOUR)]


PARKED = Parked(1, "s1", 3, DAY + 25 * HOUR - timedelta(minutes=59, seconds=30), DAY + 30 * HOUR)
NEVER, YIELDS = False, True


@pytest.mark.parametrize(
    ("state", "chunk", "segment"),
    [
        (STATE, [], []),
        (replace(STATE, now=DAY + timedelta(days=8)), [], []),
        (replace(STATE, now=DAY + timedelta(days=7, hours=23)), [YIELDS], []),
        (replace(STATE, now=DAY + timedelta(days=7, hours=1)), [YIELDS], [YIELDS]),
        (replace(STATE, protected_until=None), [YIELDS], [NEVER]),
        (replace(STATE, protected_until=DAY + 24 * HOUR - timedelta(microseconds=1)), [YIELDS], []),
        (replace(STATE, protected_until=DAY + HOUR), [YIELDS], [NEVER]),
        (replace(STATE, streams=stream(watermark=8, sure=8)), [NEVER], [NEVER]),
        (replace(STATE, streams=stream(sure=8)), [YIELDS], [NEVER]),
        (replace(STATE, parked=[PARKED]), [], [NEVER]),
        (replace(STATE, parked=[PARKED], streams=stream(numbered=frozenset({"trades"}))), [NEVER], [NEVER]),
        (replace(STATE, parked=[PARKED], streams=stream(numbered=frozenset({"quotes"}))), [], [NEVER]),
        (replace(STATE, pending=reload_at(47)), [NEVER], []),
        (replace(STATE, pending=reload_at(49)), [], []),
        (replace(STATE, done=set()), [], [NEVER]),
        (replace(STATE, damaged={(1, "s1")}), [], [NEVER]),
        (replace(STATE, pruned={}), [], [NEVER]),
        (replace(STATE, pruned={"trades": [(DAY, DAY + 2 * HOUR)]}), [], [NEVER]),
        (replace(STATE, pruned={"trades": [(DAY + 2 * HOUR, DAY + 3 * HOUR), (DAY, DAY + 2 * HOUR)]}), [], []),
        (replace(STATE, now=DAY + 12 * HOUR), [YIELDS, NEVER], [YIELDS]),
    ],
)
def test_each_reason_keeps_what_it_concerns(state: State, chunk: list[bool], segment: list[bool]) -> None:
    assert [one.yields for one in keeps_chunk(CHUNK, state, 7, KEPT)] == chunk
    assert [one.yields for one in keeps_segment(FILE, state, 7)] == segment


def test_pressure_moves_no_chunk_whose_journal_is_gone() -> None:
    young = replace(STATE, now=DAY + timedelta(days=2))
    assert [one.yields for one in keeps_chunk(CHUNK, young, 7, set())] == [True, False]
    assert keeps_chunk(CHUNK, STATE, 7, set()) == [], "what is protected needs no journal"


def test_a_segment_is_as_old_as_its_file_where_it_has_no_rows() -> None:
    bare = replace(STATE, loads=[])
    assert keeps_segment(FILE, bare, 7) == []
    late = replace(FILE, written_at=STATE.now)
    assert [one.yields for one in keeps_segment(late, bare, 7)] == [True, False]


held = st.lists(st.builds(Held, st.just("why"), st.booleans()), max_size=3)


@given(st.lists(st.tuples(st.integers(0, 100), held), max_size=8), st.integers(-10, 300))
def test_relief_takes_the_oldest_that_yield_and_no_more_than_is_needed(
    given_chunks: list[tuple[int, list[Held]]], need: int
) -> None:
    judged = [
        (Chunk("trades", DAY + n * HOUR, DAY + (n + 1) * HOUR, size), reasons)
        for n, (size, reasons) in enumerate(given_chunks)
    ]
    yielding = [chunk for chunk, reasons in judged if reasons and all(one.yields for one in reasons)]
    chosen = relieving(judged, need)
    assert chosen == yielding[: len(chosen)]
    assert sum(one.bytes for one in chosen[:-1]) < need or not chosen
    assert sum(one.bytes for one in chosen) >= need or chosen == yielding


def test_sizes_for_people() -> None:
    assert [said_bytes(n) for n in (0, 1023, 1536, 5 << 30, 1 << 50)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "1024.0 TiB",
    ]  # fmt: skip
