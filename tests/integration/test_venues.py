"""Each simulated exchange through the whole chain, in one run with every fault: ccxt dials and subscribes as it does at
the real one, two ingestors are harmed in turn, and the datalake must be the exchange's own record all the same.

Binance has longer scenarios of its own, one for each fault: test_truth.
"""

from __future__ import annotations

import time

import pytest

from collectors.decode import Identity, Proof, Stream
from collectors.simulator.wire import SIMULATED
from tests.integration.harness.compare import assert_books, assert_equal, assert_no_gap
from tests.integration.harness.epochs import (
    assert_books_of_lead,
    assert_epochs,
    assert_snapshots,
    assert_uncovered_is_listed,
)
from tests.integration.harness.fleet import Fleet, Ingestor
from tests.integration.harness.process import until
from tests.integration.harness.scenario import SYMBOLS, MakeFleet, last_moment, missing_on, trade_for

pytestmark = pytest.mark.database
VENUES = [exchange for exchange in SIMULATED if exchange != "binance"]
FRAME_FAULTS = ("drop", "duplicate", "reorder", "malformed")
KINDS = {"trades": "trade", "quotes": "bookTicker", "book_events": "depth"}


@pytest.mark.parametrize("exchange", VENUES)
def test_a_run_of_every_fault_leaves_no_trace_in_the_datalake(make_fleet: MakeFleet, exchange: str) -> None:
    # Fewer levels than any book's depth, so that what comes into view is no matter.
    fleet = make_fleet(exchange=exchange, rate=100, levels=600)
    first, second = fleet.ingestors
    fleet.exchange.fault("status", first.name, status=429, count=1)
    fleet.exchange.fault("status", second.name, status=503, count=1)
    fleet.record()
    since = time.time_ns()
    cut_frames_of(fleet, first)
    disconnect(fleet, first)
    mended = time.time_ns()
    trade_for(1)
    kill_and_restart(fleet, second)
    trade_for(2)
    fleet.finish_recording()
    fleet.load_and_sync()
    faults = fleet.exchange.faults(first.name)
    assert_harmed(fleet, faults, since)
    assert_true(fleet, since, mended)


@pytest.mark.parametrize("exchange", ["binance", "kraken", "kucoin"])
def test_connections_replaced_under_load_miss_nothing_and_double_nothing(make_fleet: MakeFleet, exchange: str) -> None:
    # Alone, so that no other ingestor makes good what it would miss.
    fleet = make_fleet(1, exchange=exchange, rate=300, levels=600, lifetime_hours=10 / 3600)
    only = fleet.ingestors[0]
    fleet.record()
    trade_for(3)  # a book is covered from its first bridged snapshot on
    since = time.time_ns()
    began = fleet.exchange.acknowledged(only.name)

    def are_all_replaced() -> bool:
        return all(at > began[stream] for stream, at in fleet.exchange.acknowledged(only.name).items())

    until(are_all_replaced, "successors of all connections")
    trade_for(4)
    ended = last_moment()
    fleet.finish_recording()
    fleet.load_and_sync()
    assert only.endings() == {"handover", "shutdown"}
    assert_no_gap(fleet, since, ended)
    assert_true(fleet, since, since)


def assert_true(fleet: Fleet, since: int, whole_from: int) -> None:
    """The datalake is the exchange's record from then on (ns); books with a checksum so to their last level from the
    second moment on.
    """
    assert_equal(fleet, since)
    if "book_events" in fleet.shared_channels:
        assert_books(fleet, since_ns=since, samples=20, seed=1)
    for channel in set(fleet.channels) - set(fleet.shared_channels):
        # A checksum is of the best levels: whether one behind them is missing shows later.
        begin = whole_from if fleet.decoder.streams[channel].proof is Proof.CHECKSUM else since
        assert assert_epochs(fleet, channel, begin) > 20, "hardly anything was compared"
        assert_uncovered_is_listed(fleet, channel, begin)
    if "book_events" not in fleet.shared_channels:
        assert_snapshots(fleet)
        assert_books_of_lead(fleet, since_ns=since, whole_from_ns=whole_from, samples=20, seed=1)


def assert_harmed(fleet: Fleet, faults: dict[str, int], since: int) -> None:
    """The faults were done, and each ingestor alone would lack something of every channel."""
    first, second = fleet.ingestors
    assert all(faults.get(kind, 0) > 0 for kind in FRAME_FAULTS), faults
    assert faults["status"] == 1, faults
    assert {"sequence", "disconnect"} <= first.endings(), first.endings()
    assert "crash" in second.endings()
    assert fleet.count(first.dsn, "parked_frames") == faults["malformed"], "what cannot be decoded is kept by reference"
    for ingestor in fleet.ingestors:
        missing = missing_on(fleet, ingestor, since)
        assert all(missing.values()), f"{ingestor.name} missed nothing of a channel: this run proved nothing: {missing}"


def shows(stream: Stream, fault: str) -> bool:
    """Whether a fault of single frames shows to anybody.

    Where the exchange sends no ids, a frame that it sent twice is two events; where the events of two connections are
    never mixed besides, one that it did not send is no event. Networks do neither: frames go over TCP. One that cannot
    be read shows anywhere.
    """
    if stream.identity in (Identity.ID, Identity.CHAIN) or fault == "malformed":
        return True
    return fault != "duplicate" and (stream.identity is Identity.TUPLE or stream.proof is Proof.CHECKSUM)


def cut_frames_of(fleet: Fleet, ingestor: Ingestor) -> None:
    """Drop, double, swap and cut what one ingestor is sent, then wait until it is whole again."""
    for channel in fleet.channels:
        for kind in FRAME_FAULTS:
            if shows(fleet.decoder.streams[channel], kind):
                often = 0.08 if channel == "book_events" else 0.04  # books have ten messages a second
                fleet.exchange.fault(kind, ingestor.name, stream=KINDS[channel], probability=often)
    trade_for(6)
    fleet.exchange.clear_faults()
    trade_for(1)


def disconnect(fleet: Fleet, ingestor: Ingestor) -> None:
    """Drop one ingestor's sockets and wait until it is back."""
    before = fleet.exchange.acknowledged(ingestor.name)
    fleet.exchange.fault("disconnect", ingestor.name)
    wanted = ingestor.streams_of(SYMBOLS)

    def is_back() -> bool:
        acknowledged = fleet.exchange.acknowledged(ingestor.name)
        is_new = all(at > before[stream] for stream, at in acknowledged.items())
        return is_new and len(fleet.exchange.streams(ingestor.name)) == wanted

    until(is_back, f"the way back of {ingestor.name}")


def kill_and_restart(fleet: Fleet, ingestor: Ingestor) -> None:
    """SIGKILL one ingestor's recorder, and start it again."""
    assert ingestor.recorder is not None
    ingestor.recorder.kill()
    until(lambda: not fleet.exchange.streams(ingestor.name), "the exchange noticing that a recorder is dead")
    fleet.keep(ingestor.record())
    ingestor.wait_subscribed(SYMBOLS)
