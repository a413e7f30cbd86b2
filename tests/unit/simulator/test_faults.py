"""Faults: read strictly, applied as asked."""

from __future__ import annotations

from random import Random

import pytest

from collectors.simulator import Fault, parse_fault
from collectors.simulator.faults import ActiveFault, Applied, FaultLog


def test_a_fault_is_read_from_the_command_line() -> None:
    text = "drop:listener=b,stream=depth,symbol=BTCUSDT,probability=0.25,count=3,after=10,seconds=5"
    assert parse_fault(text) == Fault(
        "drop", listener="b", stream="depth", symbol="BTCUSDT", probability=0.25, count=3, after=10, seconds=5
    )
    assert parse_fault("disconnect") == Fault("disconnect")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("explode", "Invalid enum value 'explode'"),
        ("drop:chance=1", "unknown field `chance`"),
        ("drop:probability", "expected key=value"),
        ("drop:probability=2", "expected above 0"),
        ("refuse", "expected seconds"),
        ("status:status=200", "expected an HTTP error"),
        ("drop:stream=kline", "Invalid enum value 'kline'"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_what_was_expected(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_fault(text)


def test_a_fault_strikes_only_in_its_time_its_stream_and_its_count() -> None:
    active = ActiveFault(Fault("drop", stream="depth", count=2, after=1, seconds=5), now=100)
    random = Random(1)
    assert not active.hits(100.5, random, stream="depth@100ms")
    assert not active.hits(102, random, stream="trade")
    assert active.hits(102, random, stream="depth@100ms")
    assert active.hits(103, random, stream="depth@100ms")
    assert not active.hits(104, random, stream="depth@100ms"), "its count is used up"
    assert active.is_over(104)
    assert ActiveFault(Fault("drop", seconds=5), now=100).is_over(105)
    assert not ActiveFault(Fault("lifetime", seconds=5), now=100).is_over(1000), "its seconds are a connection's age"


def test_chance_hits_about_as_often_as_asked() -> None:
    active = ActiveFault(Fault("drop", probability=0.1), now=0)
    random = Random(1)
    assert 50 < sum(active.hits(1, random, stream="trade") for _ in range(1000)) < 200


def test_the_log_counts_by_kind_and_listener() -> None:
    log = FaultLog()
    for listener in ("a", "a", "b"):
        log.record(Applied(1, "drop", listener))
    assert (log.count("drop"), log.count("drop", "a"), log.count("stall")) == (3, 2, 0)
    assert [applied.listener for applied in log.applied] == ["a", "a", "b"]
