"""Coverage from marks and ids: who was listening, and from when to when exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collectors.events import Channel
from collectors.load.coverage import Coverage, Interval

KNOWN = {"BTC": 1}


def fresh() -> Coverage:
    return Coverage(epoch=1, opened_at=0, alive=0, consecutive=frozenset({"trades"}))


def trade(coverage: Coverage, trade_id: int, at: int) -> None:
    coverage.event(coverage.tracker("trades", "BTC"), trade_id, at, at - 1)


def update(coverage: Coverage, first: int, last: int, at: int) -> None:
    coverage.update(coverage.tracker("book_events", "BTC"), first, last, None, at, at - 1)


def snapshot(coverage: Coverage, last: int, at: int) -> None:
    coverage.snapshot(coverage.tracker("book_events", "BTC"), last, at)


def spans(intervals: list[Interval], channel: Channel) -> list[tuple[int, int | None, object, object, str | None]]:
    return [
        (one.started_at, one.ended_at, one.first_id, one.last_id, one.ended_by)
        for one in intervals
        if one.channel == channel
    ]


def test_trades_are_covered_from_the_ack_to_the_last_sign_of_life() -> None:
    coverage = fresh()
    coverage.subscribed("trades", ["BTC"], 10)
    trade(coverage, 5, 12)
    trade(coverage, 6, 14)
    coverage.reaches(20)
    coverage.close("disconnect", 25)
    assert spans(coverage.changes(KNOWN), "trades") == [(10, 20, 5, 6, "disconnect")]
    assert (coverage.closed_at, coverage.ended_by) == (25, "disconnect")


def test_a_jump_of_trade_ids_ends_coverage_at_the_last_good_trade() -> None:
    coverage = fresh()
    coverage.subscribed("trades", ["BTC"], 10)
    for trade_id, at in ((5, 12), (6, 14), (9, 18), (10, 19)):
        trade(coverage, trade_id, at)
    coverage.reaches(30)
    coverage.close("shutdown", 30)
    assert spans(coverage.changes(KNOWN), "trades") == [(10, 14, 5, 6, "sequence"), (18, 30, 9, 10, "shutdown")]


def test_a_trade_sent_twice_or_late_changes_nothing() -> None:
    coverage = fresh()
    coverage.subscribed("trades", ["BTC"], 10)
    for trade_id, at in ((5, 12), (6, 14), (6, 15), (5, 16), (7, 17)):
        trade(coverage, trade_id, at)
    coverage.reaches(30)
    coverage.close("shutdown", 30)
    assert spans(coverage.changes(KNOWN), "trades") == [(10, 30, 5, 7, "shutdown")]


def test_quotes_jump_as_they_like() -> None:
    coverage = fresh()
    coverage.subscribed("quotes", ["BTC"], 10)
    for update_id, at in ((5, 12), (60, 14)):
        coverage.event(coverage.tracker("quotes", "BTC"), update_id, at, None)
    (interval,) = coverage.changes(KNOWN)
    assert (interval.started_at, interval.ended_at, interval.first_id, interval.is_sequence) == (10, None, 5, False)


def test_a_subscription_alone_covers_no_book() -> None:
    coverage = fresh()
    coverage.subscribed("book_events", ["BTC"], 10)
    update(coverage, 1, 3, 11)
    assert coverage.changes(KNOWN) == []


def test_a_book_is_covered_once_snapshot_and_bridge_are_both_there() -> None:
    snapshot_last = fresh()
    update(snapshot_last, 1, 3, 11)
    update(snapshot_last, 4, 6, 12)
    snapshot(snapshot_last, 4, 13)
    assert spans(snapshot_last.changes(KNOWN), "book_events") == [(13, None, 4, None, None)]

    update_last = fresh()
    snapshot(update_last, 6, 13)
    update(update_last, 4, 6, 14)
    assert update_last.changes(KNOWN) == []
    update(update_last, 7, 7, 15)
    assert spans(update_last.changes(KNOWN), "book_events") == [(15, None, 6, None, None)]


def test_a_snapshot_older_than_the_chain_covers_nothing() -> None:
    coverage = fresh()
    update(coverage, 10, 12, 11)
    snapshot(coverage, 8, 12)
    update(coverage, 13, 14, 13)
    assert coverage.changes(KNOWN) == []
    snapshot(coverage, 9, 14)
    assert spans(coverage.changes(KNOWN), "book_events") == [(14, None, 9, None, None)]


def test_a_broken_chain_ends_the_book_until_the_next_snapshot_bridges() -> None:
    coverage = fresh()
    update(coverage, 1, 3, 11)
    snapshot(coverage, 2, 12)
    update(coverage, 4, 6, 13)
    update(coverage, 9, 10, 15)  # 7 and 8 are missing
    update(coverage, 11, 12, 16)
    snapshot(coverage, 10, 17)
    coverage.reaches(20)
    coverage.close("stall", 21)
    assert spans(coverage.changes(KNOWN), "book_events") == [(12, 13, 2, 6, "sequence"), (17, 20, 10, 12, "stall")]


def test_an_hourly_snapshot_of_a_synchronised_book_changes_nothing() -> None:
    coverage = fresh()
    update(coverage, 1, 3, 11)
    snapshot(coverage, 2, 12)
    snapshot(coverage, 3, 13)
    update(coverage, 4, 6, 14)
    assert spans(coverage.changes(KNOWN), "book_events") == [(12, None, 2, None, None)]


def test_an_end_of_subscription_covers_nothing_behind_it() -> None:
    coverage = fresh()
    coverage.subscribed("trades", ["BTC"], 10)
    trade(coverage, 5, 12)
    coverage.unsubscribed("trades", ["BTC"], 20)
    trade(coverage, 6, 21)
    assert spans(coverage.changes(KNOWN), "trades") == [(10, 20, 5, 5, "shutdown")]
    coverage.subscribed("trades", ["BTC"], 30)
    trade(coverage, 90, 31)
    assert spans(coverage.changes(KNOWN), "trades") == [(30, None, 90, None, None)]


def test_damage_of_the_journal_ends_everything_at_the_last_commit_before_it() -> None:
    coverage = fresh()
    coverage.subscribed("trades", ["BTC"], 10)
    trade(coverage, 5, 12)
    update(coverage, 1, 3, 12)
    snapshot(coverage, 2, 13)
    coverage.reaches(15)
    coverage.damaged()
    trade(coverage, 6, 40)  # looks consecutive, but who knows
    update(coverage, 4, 5, 41)
    assert spans(coverage.changes(KNOWN), "trades") == [(10, 15, 5, 5, "disk"), (40, None, 6, None, None)]


def test_intervals_of_an_unknown_instrument_wait_until_it_is_known() -> None:
    coverage = fresh()
    coverage.subscribed("trades", ["BTC"], 10)
    for trade_id, at in ((5, 12), (9, 18)):
        trade(coverage, trade_id, at)
    assert coverage.changes({}) == []
    coverage = Coverage.load(coverage.dump())
    assert spans(coverage.changes(KNOWN), "trades") == [(10, 12, 5, 5, "sequence"), (18, None, 9, None, None)]
    assert coverage.changes(KNOWN) == []


STEPS = st.lists(
    st.tuples(st.sampled_from(["trade", "jump", "copy", "update", "break", "snapshot", "damage", "unsub", "sub"]))
    | st.just(("trade",))
    | st.just(("update",)),
    max_size=40,
).map(lambda steps: [step[0] for step in steps])


def play(coverage: Coverage, step: str, at: int, ids: dict[str, int]) -> None:
    if step in ("trade", "jump", "copy"):
        ids["trade"] += {"trade": 1, "jump": 3, "copy": 0}[step]
        trade(coverage, ids["trade"], at)
    elif step in ("update", "break"):
        first = ids["book"] + (1 if step == "update" else 5)
        ids["book"] = first + 2
        update(coverage, first, first + 2, at)
    elif step == "snapshot":
        snapshot(coverage, ids["book"] - 1, at)
    elif step == "damage":
        coverage.damaged()
    elif step == "sub":
        coverage.subscribed("trades", ["BTC"], at)
    else:
        coverage.unsubscribed("trades", ["BTC"], at)
    coverage.reaches(at)


def rows(changes: list[Interval]) -> list[tuple[object, ...]]:
    """What the database holds after inserts and updates of open rows."""
    out: list[tuple[object, ...]] = []
    still_open: dict[str, int] = {}
    for one in changes:
        row = (one.channel, one.started_at, one.ended_at, one.first_id, one.last_id, one.ended_by)
        if one.is_new:
            assert one.channel not in still_open, "two open rows of one channel"
            still_open[one.channel] = len(out)
            out.append(row)
        else:
            out[still_open[one.channel]] = row
        if one.ended_at is not None:
            del still_open[one.channel]
    return out


@given(STEPS, st.sets(st.integers(0, 40)))
def test_a_restart_at_any_batch_boundary_changes_no_interval(steps: list[str], restarts: set[int]) -> None:
    def run(boundaries: set[int]) -> list[str]:
        coverage, ids, changes = fresh(), {"trade": 100, "book": 100}, []
        for number, step in enumerate(steps):
            play(coverage, step, 10 * (number + 1), ids)
            if number in boundaries:
                changes += coverage.changes(KNOWN)
                coverage = Coverage.load(coverage.dump())
        coverage.close("crash", coverage.alive)
        return sorted(map(repr, rows(changes + coverage.changes(KNOWN))))

    assert run(restarts) == run(set())


@given(STEPS)
def test_intervals_never_overlap_and_never_reach_beyond_the_last_sign_of_life(steps: list[str]) -> None:
    coverage, ids = fresh(), {"trade": 100, "book": 100}
    for number, step in enumerate(steps):
        play(coverage, step, 10 * (number + 1), ids)
    coverage.close("disconnect", coverage.alive + 5)
    intervals = coverage.changes(KNOWN)
    for channel in ("trades", "book_events"):
        edges = [(one.started_at, one.ended_at) for one in intervals if one.channel == channel]
        assert all(end is not None and start <= end <= coverage.alive for start, end in edges)
        flat = [edge for pair in edges for edge in pair if edge is not None]
        assert flat == sorted(flat)
