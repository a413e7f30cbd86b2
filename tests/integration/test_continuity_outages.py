"""A report of continuity after chaos: each outage that left nobody listening is listed, as long as it was; no other."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from msgspec import Struct

from collectors.coverage import Continuity, Gap, Query, check_continuity
from collectors.coverage.report import render
from tests.integration.harness.fleet import CHANNELS, COMMIT_INTERVAL_S, Fleet, query
from tests.integration.harness.process import until
from tests.integration.harness.scenario import SYMBOLS, MakeFleet, last_moment, trade_for

pytestmark = pytest.mark.database
STREAMS = 3 * len(SYMBOLS)
KINDS = {"trades": "trade", "quotes": "bookTicker", "book_events": "depth@100ms"}
BUSY_S = 1.0
"""How long a commit may have to wait for the disk, or a frame for its turn, where all share two busy cores."""
SNAPSHOT_S = 15.0
"""A book is covered again with its first snapshot."""


class Outage(Struct):
    """When nobody listened (ns since 1970): from some moment between ``first`` and ``all_out``, until ``back``, when
    the exchange acknowledged a subscription to a stream again, by stream.
    """

    cause: str
    first: int
    all_out: int
    back: dict[str, int]


def acknowledged(fleet: Fleet) -> dict[str, int]:
    """By stream, when the first ingestor that is subscribed now was acknowledged."""
    found = [fleet.exchange.acknowledged(one.name) for one in fleet.ingestors]
    return {stream: min(each[stream] for each in found) for stream in found[0]}


def refuse(fleet: Fleet, listener: str) -> Outage:
    """The exchange drops its connections and closes its port for two seconds."""
    names = [one.name for one in fleet.ingestors if listener in ("*", one.name)]
    first = time.time_ns()
    fleet.exchange.fault("refuse", listener, seconds=2)
    until(lambda: not any(fleet.exchange.streams(name) for name in names), "the outage")
    all_out = time.time_ns()
    until(lambda: all(len(fleet.exchange.streams(name)) == STREAMS for name in names), "the way back")
    return Outage("disconnect", first, all_out, acknowledged(fleet))


def kill(fleet: Fleet, *numbers: int) -> Outage:
    """Recorders die and are started again."""
    killed = [fleet.ingestors[number] for number in numbers]
    first = time.time_ns()
    for ingestor in killed:
        assert ingestor.recorder is not None
        ingestor.recorder.kill()
    until(lambda: not any(fleet.exchange.streams(one.name) for one in killed), "the exchange noticing it")
    all_out = time.time_ns()
    for ingestor in killed:
        fleet.keep(ingestor.record())
    for ingestor in killed:
        ingestor.wait_subscribed(SYMBOLS)
    return Outage("crash", first, all_out, acknowledged(fleet))


def test_the_report_of_a_chaos_run_lists_every_outage_that_was_caused_and_none_that_was_not(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet()
    fleet.record()
    until(lambda: all(_is_bridged(fleet, number) for number in (0, 1)), "every book's first snapshot")
    since = time.time_ns()
    trade_for(1)
    refuse(fleet, fleet.ingestors[0].name)
    trade_for(2)
    outages = [refuse(fleet, "*")]
    trade_for(3)
    kill(fleet, 0)
    trade_for(3)
    outages.append(kill(fleet, 0, 1))
    trade_for(5)
    ended = last_moment()
    fleet.finish_recording()
    fleet.load_and_sync()

    with psycopg.connect(fleet.datalake_dsn, client_encoding="UTF8") as connection:
        answers = check_continuity(connection, Query(since=moment(since), until=moment(ended)))
    assert len(answers) == len(SYMBOLS) * len(CHANNELS)
    page = render(answers)
    for answer in answers:
        where = f"{answer.symbol} {answer.channel}"
        assert answer.troubles == [], where
        assert len(answer.gaps) == len(outages), f"{where}: {[(g.start, g.end) for g in answer.gaps]} for {outages}"
        for gap, outage in zip(answer.gaps, outages, strict=True):
            _assert_is(gap, outage, answer, fleet)
            shown = [f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3] for at in (gap.start, gap.end)]
            assert f"<td>{shown[0]}</td><td>{shown[1]}</td>" in page, f"{where}: the page lacks {shown}"
    # What one ingestor alone missed is no gap, and is known all the same.
    for ingestor, causes in zip(
        fleet.ingestors,
        (["disconnect", "disconnect", "crash", "crash", "shutdown"], ["disconnect", "crash", "shutdown"]),
        strict=True,
    ):
        text = (
            "SELECT ended_by FROM coverage WHERE channel = 'trades' AND instrument_id = 1"
            f" AND ingestor = '{ingestor.name}' ORDER BY started_at"
        )
        assert [row[0] for row in query(fleet.datalake_dsn, text)] == causes


def _is_bridged(fleet: Fleet, number: int) -> bool:
    """Whether every book of an ingestor has had its snapshot, from which on it is covered."""
    log = (fleet.folder / f"{fleet.ingestors[number].name}.log").read_text()
    return all(f"event=snapshot symbol={symbol}" in log for symbol in fleet.instruments)


def _assert_is(gap: Gap, outage: Outage, answer: Continuity, fleet: Fleet) -> None:
    where = f"{answer.symbol} {answer.channel} {outage.cause}"
    native_id = next(name for name, number in fleet.instruments.items() if number == answer.instrument_id)
    back = moment(outage.back[f"{native_id.lower()}@{KINDS[answer.channel]}"])
    slack = timedelta(seconds=COMMIT_INTERVAL_S + BUSY_S)
    resynchronised = timedelta(seconds=SNAPSHOT_S) if answer.channel == "book_events" else slack
    assert moment(outage.first) - slack <= gap.start <= moment(outage.all_out) + slack, f"{where}: {gap} {outage}"
    assert back - slack <= gap.end <= back + resynchronised, f"{where}: {gap} {outage}"
    assert outage.cause in gap.ended_by.values(), f"{where}: {gap}"


def moment(ns: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
