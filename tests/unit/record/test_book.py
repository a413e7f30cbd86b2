"""Chains of updates and the snapshots that bridge to them."""

from __future__ import annotations

import random

import pytest

from collectors.decode import BookIds, Proof
from collectors.record.book import BookChain, Break


def ids(first: int, last: int, previous: int | None = None) -> BookIds:
    return BookIds("BTCUSDT", first, last, previous)


def test_updates_that_follow_each_other_show_no_break() -> None:
    chain = BookChain()
    assert [chain.update(ids(10, 12)), chain.update(ids(13, 13)), chain.update(ids(14, 20))] == [None] * 3


def test_a_missing_update_is_a_break_and_undoes_the_bridge() -> None:
    chain = BookChain()
    chain.update(ids(10, 12))
    assert chain.snapshot(11)
    assert chain.update(ids(14, 15)) == Break(13, 14)
    assert not chain.is_bridged
    assert chain.snapshot(12) is False, "12 to 14 is missing between this snapshot and the chain"
    assert chain.snapshot(13) is True


def test_a_previous_id_decides_where_the_wire_has_one() -> None:
    chain = BookChain()
    chain.update(ids(10, 12, 9))
    assert chain.update(ids(20, 22, 12)) is None
    assert chain.update(ids(30, 32, 29)) == Break(23, 30)


@pytest.mark.parametrize("late", [ids(10, 12), ids(5, 7)])
def test_what_is_not_new_changes_nothing(late: BookIds) -> None:
    chain = BookChain()
    chain.update(ids(10, 12))
    chain.update(ids(13, 14))
    chain.snapshot(10)
    assert chain.update(late) is None
    assert chain.is_bridged
    assert chain.update(ids(15, 15)) is None


def test_a_snapshot_before_any_update_waits_for_one() -> None:
    chain = BookChain()
    assert chain.snapshot(100) is None
    assert chain.is_waiting
    chain.update(ids(90, 99))
    assert chain.is_waiting
    chain.update(ids(100, 105))
    assert chain.is_bridged


def test_a_snapshot_older_than_the_chain_is_forgotten() -> None:
    chain = BookChain()
    assert chain.snapshot(100) is None
    chain.update(ids(102, 103))
    assert not chain.is_waiting
    assert not chain.is_bridged


def test_a_later_snapshot_that_does_not_bridge_does_not_undo_one_that_did() -> None:
    chain = BookChain()
    chain.update(ids(10, 12))
    assert chain.snapshot(10) is True
    assert chain.snapshot(5) is True
    assert chain.is_bridged


@pytest.mark.parametrize("seed", range(20))
def test_a_chain_is_bridged_exactly_when_nothing_is_missing(seed: int) -> None:
    """Against the definition, by brute force: all updates after the snapshot were received."""
    rng = random.Random(seed)
    chain, received, snapshot, first = BookChain(), set[int](), None, 1
    for _ in range(200):
        last = first + rng.randrange(4)
        if rng.random() < 0.85:
            if chain.update(ids(first, last)) is not None:
                snapshot = None
            received |= set(range(first, last + 1))
        if rng.random() < 0.2 and not chain.is_bridged:
            snapshot = rng.randrange(max(last - 6, 1), last + 3)
            chain.snapshot(snapshot)
        if chain.is_bridged:
            assert snapshot is not None
            assert set(range(snapshot + 1, max(received) + 1)) <= received
        first = last + 1


def whole(last: int | None) -> BookIds:
    return BookIds("BTCUSDT", last, last, None, True)


@pytest.mark.parametrize("proof", list(Proof))
def test_a_snapshot_on_the_socket_synchronises_at_once(proof: Proof) -> None:
    chain = BookChain(proof, "socket")
    assert chain.update(ids(1, 1)) is None
    assert not chain.is_bridged, "an update before the whole book counts for nothing"
    assert chain.update(whole(10)) is None
    assert chain.is_bridged


@pytest.mark.parametrize(
    ("proof", "good", "bad"),
    [
        (Proof.CONSECUTIVE, BookIds("X", 11, 12, None), BookIds("X", 14, 15, None)),
        (Proof.CONSECUTIVE, BookIds("X", None, 11, None), BookIds("X", None, 13, None)),
        (Proof.PREVIOUS, BookIds("X", None, 15, 10), BookIds("X", None, 30, 20)),
    ],
)
def test_a_break_on_the_socket_lasts_until_the_next_whole_book(proof: Proof, good: BookIds, bad: BookIds) -> None:
    chain = BookChain(proof, "socket")
    chain.update(whole(10))
    assert chain.update(good) is None
    assert chain.is_bridged
    assert chain.update(bad) is not None
    assert not chain.is_bridged
    assert chain.update(BookIds("X", 100, 100, 99)) is None, "told once"
    chain.update(whole(7))
    assert chain.is_bridged, "ids may start anew with a whole book"


@pytest.mark.parametrize("proof", [Proof.CHECKSUM, Proof.NONE, Proof.CONNECTION])
def test_without_ids_that_chain_nothing_breaks(proof: Proof) -> None:
    chain = BookChain(proof, "socket")
    chain.update(whole(None))
    assert chain.update(BookIds("X", None, None, None)) is None
    assert chain.update(ids(50, 60)) is None
    assert chain.update(ids(80, 90)) is None
    assert chain.is_bridged


def test_where_every_message_is_a_whole_book_the_first_synchronises() -> None:
    chain = BookChain(Proof.CONSECUTIVE, "always")
    assert not chain.is_bridged
    assert [chain.update(ids(5, 5)), chain.update(ids(9, 9))] == [None, None]
    assert chain.is_bridged


def test_a_snapshot_by_rest_without_chained_ids_must_hold_an_update_that_was_received() -> None:
    chain = BookChain(Proof.NONE, "rest")
    chain.update(ids(100, 100))
    assert chain.snapshot(99) is False, "what came between 99 and 100 is unknown"
    assert chain.snapshot(100) is True
    assert BookChain(Proof.NONE, "rest").snapshot(None) is True, "no ids at all: it was asked for after subscribing"


def after(previous: int, last: int) -> BookIds:
    return BookIds("X", None, last, previous)


def test_a_whole_book_that_newer_updates_overtook_keeps_the_chain() -> None:
    chain = BookChain(Proof.PREVIOUS, "socket")
    assert [chain.update(one) for one in (after(10, 12), after(12, 15), after(15, 19))] == [None] * 3
    assert not chain.is_bridged
    chain.update(whole(15))
    assert chain.is_bridged
    assert chain.update(after(19, 22)) is None, "19 came before the book, and is not missing"
    assert chain.update(after(25, 30)) is not None


def test_what_is_missing_before_the_whole_book_counts_only_where_that_is_older() -> None:
    for book, is_broken in ((12, True), (17, False)):
        chain = BookChain(Proof.PREVIOUS, "socket")
        assert [chain.update(one) for one in (after(10, 12), after(17, 19))] == [None, None]
        chain.update(whole(book))
        assert (chain.update(after(19, 22)) is not None) is is_broken
