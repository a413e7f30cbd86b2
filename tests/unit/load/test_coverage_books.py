"""Coverage of books by previous ids, from the socket and without ids: as each of the exchanges declares it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.decode import EXCHANGES, decoder
from collectors.load.coverage import Coverage, Interval

KNOWN = {"BTC": 1}
Span = tuple[int, int | None, object, object, str | None]


def begin(exchange: str) -> Coverage:
    return Coverage.begin(0, decoder(exchange))


def update(coverage: Coverage, previous: int | None, last: int | None, at: int, first: int | None = None) -> None:
    coverage.update(coverage.tracker("book_events", "BTC"), first, last, previous, at, at - 1)


def snapshot(coverage: Coverage, last: int | None, at: int) -> None:
    coverage.snapshot(coverage.tracker("book_events", "BTC"), last, at)


def spans(intervals: list[Interval]) -> list[Span]:
    return [(one.started_at, one.ended_at, one.first_id, one.last_id, one.ended_by) for one in intervals]


def closed(coverage: Coverage, alive: int) -> list[Interval]:
    coverage.reaches(alive)
    coverage.close("disconnect", alive + 5)
    return coverage.changes(KNOWN)


def test_a_whole_book_on_the_socket_covers_at_once() -> None:
    coverage = begin("okx")
    snapshot(coverage, 100, 10)
    update(coverage, 100, 105, 11)
    update(coverage, 105, 105, 12)  # nothing changed for a minute
    update(coverage, 105, 109, 13)
    assert spans(closed(coverage, 20)) == [(10, 20, 100, 109, "disconnect")]


def test_a_missing_previous_id_ends_the_book_until_the_exchange_sends_it_whole() -> None:
    coverage = begin("okx")
    snapshot(coverage, 100, 10)
    update(coverage, 100, 105, 11)
    update(coverage, 107, 109, 13)
    update(coverage, 109, 110, 14)
    snapshot(coverage, 120, 16)
    update(coverage, 120, 121, 17)
    assert spans(closed(coverage, 20)) == [(10, 11, 100, 105, "sequence"), (16, 20, 120, 121, "disconnect")]


def test_ids_that_fall_but_name_the_one_before_go_on() -> None:
    coverage = begin("okx")
    snapshot(coverage, 100, 10)
    update(coverage, 100, 105, 11)
    update(coverage, 105, 3, 12)
    update(coverage, 3, 5, 13)
    update(coverage, 4, 5, 14)  # a copy changes nothing
    assert spans(closed(coverage, 20)) == [(10, 20, 100, 5, "disconnect")]


def test_a_book_that_starts_anew_is_covered_anew() -> None:
    coverage = begin("bybit")
    snapshot(coverage, 50, 10)
    update(coverage, None, 51, 11, first=51)
    snapshot(coverage, 1, 15)
    update(coverage, None, 2, 16, first=2)
    snapshot(coverage, 1, 18)
    update(coverage, None, 2, 19, first=2)
    assert spans(closed(coverage, 30)) == [
        (10, 11, 50, 51, "venue"),
        (15, 16, 1, 2, "venue"),
        (18, 30, 1, 2, "disconnect"),
    ]


def test_the_same_whole_book_once_more_changes_nothing() -> None:
    coverage = begin("bybit")
    snapshot(coverage, 50, 10)
    snapshot(coverage, 50, 13)
    assert spans(closed(coverage, 20)) == [(10, 20, 50, 50, "disconnect")]


def test_the_first_update_may_reach_back_over_the_whole_book_and_no_other() -> None:
    coverage = begin("gate")
    snapshot(coverage, 50, 10)
    update(coverage, None, 52, 11, first=48)
    update(coverage, None, 54, 12, first=52)
    assert spans(coverage.changes(KNOWN)) == [(10, 11, 50, 52, "sequence")]


def test_a_whole_book_asked_for_on_the_socket_lies_inside_the_chain() -> None:
    coverage = begin("htx")
    update(coverage, 100, 103, 10)
    update(coverage, 103, 107, 11)
    snapshot(coverage, 103, 12)
    update(coverage, 107, 109, 13)
    assert spans(closed(coverage, 20)) == [(12, 20, 103, 109, "disconnect")]


def test_a_whole_book_by_rest_bridges_updates_that_name_only_the_one_before() -> None:
    coverage = begin("binanceusdm")
    update(coverage, 100, 103, 10)
    snapshot(coverage, 101, 12)
    update(coverage, 103, 109, 13)
    update(coverage, 110, 112, 14)
    assert spans(coverage.changes(KNOWN)) == [(12, 13, 101, 109, "sequence")]


@pytest.mark.parametrize("exchange", ["kraken", "coinbaseexchange", "dydx", "gemini", "bitfinex", "upbit", "phemex"])
def test_a_book_without_ids_is_covered_by_its_connection(exchange: str) -> None:
    coverage = begin(exchange)
    update(coverage, None, None, 9)  # of a book nobody has
    snapshot(coverage, None, 10)
    update(coverage, None, None, 11)
    snapshot(coverage, None, 12)
    (interval,) = closed(coverage, 20)
    assert (interval.started_at, interval.ended_at, interval.is_sequence) == (10, 20, False)


def test_damage_leaves_a_book_without_ids_uncovered_until_it_comes_whole() -> None:
    coverage = begin("kraken")
    snapshot(coverage, None, 10)
    coverage.reaches(12)
    coverage.damaged()
    update(coverage, None, None, 15)
    snapshot(coverage, None, 17)
    assert spans(closed(coverage, 20)) == [(10, 12, None, None, "disk"), (17, 20, None, None, "disconnect")]


def test_a_stamped_book_by_rest_must_not_be_older_than_the_first_update() -> None:
    coverage = begin("bitstamp")
    update(coverage, None, 1_000, 10, first=1_000)
    snapshot(coverage, 900, 11)
    update(coverage, None, 1_100, 12, first=1_100)
    assert coverage.changes(KNOWN) == []
    snapshot(coverage, 1_050, 13)
    update(coverage, None, 1_700, 14, first=1_700)
    (interval,) = closed(coverage, 20)
    assert spans([interval]) == [(13, 20, 1_050, 1_700, "disconnect")]
    assert not interval.is_sequence


def test_a_state_of_an_older_version_keeps_the_rules_it_began_with() -> None:
    dumped = msgspec.msgpack.decode(begin("okx").dump())
    coverage = Coverage.load(msgspec.msgpack.encode(dumped[:8]))
    assert (coverage.snapshots, coverage.is_chained) == (None, True)
    assert Coverage.load(begin("okx").dump()).snapshots == "socket"


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_exchange_with_a_book_can_cover_it(exchange: str) -> None:
    """A whole book and the update behind it, as its declared identity numbers them."""
    coverage = begin(exchange)
    if "book_events" not in decoder(exchange).streams:
        pytest.fail(f"{exchange} has no book: leave it out by name")
    update(coverage, 9, 10, 10, first=10)
    snapshot(coverage, 10, 11)
    update(coverage, 10, 11, 12, first=11)
    assert spans(closed(coverage, 20))[0][1] == 20


STEPS = st.lists(
    st.sampled_from(["update", "update", "update", "lost", "copy", "quiet", "anew", "whole", "restart"]), max_size=50
)


def played(exchange: str, steps: list[str], *, restarts: bool) -> tuple[list[Interval], list[int], int]:
    """Coverage of steps, the moments at which something was lost, and the last moment of all.

    Whole books and the last update always arrive: a loss that nothing comes behind shows nowhere.
    """
    coverage, lost, last, at, out = begin(exchange), [], 1_000_000, 10, []
    snapshot(coverage, last, at)
    for step in [*steps, "update"]:
        at += 10
        if step in {"anew", "whole"}:
            last = last - 10_000 if step == "anew" else last + 7  # never an id that was there
            snapshot(coverage, last, at)
        elif step == "copy":
            update(coverage, last - 1, last, at)
        elif step == "quiet":
            update(coverage, last, last, at)
        elif step == "lost":
            last += 3
            lost.append(at)
        elif step == "update":
            update(coverage, last, last + 3, at)
            last += 3
        elif restarts:
            out += coverage.changes(KNOWN)
            coverage = Coverage.load(coverage.dump())
        coverage.reaches(at)
    return [*out, *closed(coverage, at)], lost, at


@given(STEPS)
def test_no_loss_lies_inside_coverage_and_none_is_needed_to_end_it(steps: list[str]) -> None:
    intervals, lost, end = played("okx", steps, restarts=False)
    assert all(one.ended_at is not None for one in intervals)
    edges = [edge for one in intervals for edge in (one.started_at, one.ended_at or 0)]
    assert edges == sorted(edges)
    assert not [at for at in lost for one in intervals if one.started_at <= at <= (one.ended_at or 0)]
    if not lost and not {"anew", "whole"} & set(steps):
        assert [(one.started_at, one.ended_at) for one in intervals] == [(10, end)]


@given(STEPS)
def test_a_restart_of_the_loader_changes_no_interval(steps: list[str]) -> None:
    def final(intervals: list[Interval]) -> list[Span]:
        return spans([one for one in intervals if one.ended_at is not None])

    assert final(played("okx", steps, restarts=True)[0]) == final(played("okx", steps, restarts=False)[0])


def test_what_a_mark_tells_ends_a_book_without_ids_before_the_last_update() -> None:
    coverage = begin("kraken")
    snapshot(coverage, None, 10)
    update(coverage, None, None, 11)
    update(coverage, None, None, 13)  # its checksum did not fit: what is missing came before it
    coverage.lost("book_events", "BTC", 13)
    update(coverage, None, None, 14)
    snapshot(coverage, None, 16)
    update(coverage, None, None, 17)
    found = [(started, ended, why) for started, ended, _, _, why in spans(closed(coverage, 20))]
    assert found == [(10, 11, "sequence"), (16, 20, "disconnect")]


def test_a_mark_behind_several_updates_of_one_moment_vouches_for_none_of_them() -> None:
    coverage = begin("kraken")
    snapshot(coverage, None, 10)
    for at in (11, 13, 13, 13):
        update(coverage, None, None, at)
    coverage.lost("book_events", "BTC", 13)
    assert [(one[0], one[1]) for one in spans(closed(coverage, 20))] == [(10, 11)]


def test_a_book_that_never_had_an_update_ends_where_it_began() -> None:
    coverage = begin("kraken")
    snapshot(coverage, None, 10)
    coverage.lost("book_events", "BTC", 10)
    assert [(one[0], one[1]) for one in spans(closed(coverage, 20))] == [(10, 10)]


def test_single_events_go_on_behind_a_mark() -> None:
    coverage = begin("kraken")
    coverage.subscribed("quotes", ["BTC"], 5)
    tracker = coverage.tracker("quotes", "BTC")
    coverage.event(tracker, None, 11, 11)
    coverage.lost("quotes", "BTC", 13)
    coverage.event(tracker, None, 15, 15)
    found = [(started, ended, why) for started, ended, _, _, why in spans(closed(coverage, 20))]
    assert found == [(5, 11, "sequence"), (13, 20, "disconnect")]


def test_where_ids_chain_a_mark_changes_nothing() -> None:
    coverage = begin("okx")
    snapshot(coverage, 100, 10)
    update(coverage, 100, 105, 11)
    coverage.lost("book_events", "BTC", 11)
    update(coverage, 105, 109, 13)
    assert spans(closed(coverage, 20)) == [(10, 20, 100, 109, "disconnect")]


def test_what_a_mark_needs_survives_a_restart() -> None:
    coverage = begin("kraken")
    snapshot(coverage, None, 10)
    update(coverage, None, None, 11)
    update(coverage, None, None, 13)
    coverage = Coverage.load(coverage.dump())
    coverage.lost("book_events", "BTC", 13)
    assert [(one[0], one[1]) for one in spans(closed(coverage, 20))] == [(10, 11)]
