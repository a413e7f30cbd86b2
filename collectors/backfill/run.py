"""Fill the gaps of trades from the exchanges' own history: one function for the command, the playbook and tests.

The contract: a gap is filled backwards, page by page; each page commits with its progress, so a kill at any point loses
at most the page on its way, and the next run goes on from there. Every trade is merged by its identity, so nothing is
doubled, whoever else delivers it. A gap is mended only where it is proven: ids that rise by one are all there, or the
exchange's list reached without a break from the first trade known behind the gap to the last one known before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import ccxt
import psycopg
import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from collectors.backfill import client, store
from collectors.backfill.client import Asked, UnansweredError
from collectors.backfill.histories import HISTORIES, HistoryError
from collectors.backfill.plan import Plan, State, plan_gap
from collectors.config import Endpoint
from collectors.coverage import Gap, Query, check_continuity
from collectors.coverage.model import Continuity, Interval
from collectors.datalake import is_dropped, missing_relations
from collectors.decode import EXCHANGES
from collectors.errors import CryptopipError
from collectors.events import Trade

Asking = Callable[[str, Endpoint], AbstractAsyncContextManager[Asked]]
LOCK = int.from_bytes(b"cpipback")


class BackfillRunningError(CryptopipError):
    """Another run fills the gaps of this datalake."""

    exit_code = 0


class Filled(Struct):
    """One gap: what is known of it now, and how many trades this run added; ``is_news``: its row was written."""

    plan: Plan
    state: State | None
    detail: str
    rows: int = 0
    is_news: bool = False


class BackfillReport(Struct):
    """What a run did, or would do; ``errors`` by exchange, of those that did not answer."""

    gaps: list[Filled] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Trades added."""
        return sum(gap.rows for gap in self.gaps)

    @property
    def left(self) -> list[Filled]:
        """Gaps that stay listed."""
        return [gap for gap in self.gaps if gap.state not in ("empty", "mended")]


def backfill(
    connection: psycopg.Connection[Any],
    query: Query,
    endpoints: Mapping[str, Endpoint],
    *,
    check: bool = False,
    retry: bool = False,
    on_progress: Callable[[Filled], None] = lambda _: None,
    asking: Asking = client.asking,
) -> BackfillReport:
    """Fill what can be filled of the gaps that ``query`` lists; with ``check`` only say what would be tried.

    The connection is in autocommit mode. ``retry`` asks again for gaps that were out of reach. Raises UsageError,
    CryptopipError for a database that is no datalake, BackfillRunningError where another run is at work.
    """
    if lacking := missing_relations(connection, ("backfills",)):
        raise CryptopipError(
            f"the database {connection.info.dbname} has no {', '.join(lacking)}:"
            " name a datalake, or run playbooks/migrate.yml"
        )
    if check:
        return BackfillReport([_judged(plan) for plan in plans(connection, query, retry=retry)])
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
    if row is None or not row[0]:
        raise BackfillRunningError("another run fills the gaps of this datalake: nothing to do here")
    try:
        report = BackfillReport([_judged(plan) for plan in plans(connection, query, retry=retry)])
        for gap in report.gaps:
            if gap.state in ("empty", "mended"):
                gap.is_news = store.note(connection, gap.plan, gap.state, gap.detail)
        asyncio.run(_ask_all(connection, report, endpoints, on_progress, asking))
        return report
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def plans(connection: psycopg.Connection[Any], query: Query, *, retry: bool = False) -> Iterator[Plan]:
    """What to do about each gap of trades, and about each jump of trade ids, by exchange, symbol and time."""
    natives = {row[0]: row[1] for row in connection.execute("SELECT id, native_id FROM instruments")}
    for answer in check_continuity(connection, replace(query, channel="trades")):
        if answer.exchange not in EXCHANGES:
            continue  # of a version that knows more; the check lists its gaps all the same
        instrument = (answer.instrument_id, answer.exchange, answer.symbol, natives[answer.instrument_id])
        for gap in _gaps(answer):
            if is_dropped(connection, "trades", gap.start, gap.end):
                continue  # the history no longer has what is next to it, nor takes what belongs into it
            yield _plan(connection, instrument, gap, retry=retry)


def _gaps(answer: Continuity) -> Iterator[Gap]:
    yield from answer.gaps
    for jump in answer.troubles:
        if jump.kind == "ids_missing" and jump.ids is not None:
            first, last = jump.ids
            yield Gap(
                start=jump.start,
                end=jump.end,
                seconds=(jump.end - jump.start).total_seconds(),
                last_id_before=str(first - 1),
                first_id_after=str(last + 1),
                ended_by={},
                kind="ids_missing",
                ids_between=last - first + 1,
            )


def _plan(connection: psycopg.Connection[Any], instrument: tuple[int, str, str, str], gap: Gap, *, retry: bool) -> Plan:
    span = Interval(gap.start, gap.end)
    missing = store.missing_ids(connection, instrument[0], gap)
    if missing is None and (gap.first_id_after is None or (gap.ended_by and gap.last_id_before is None)):
        before, behind = store.edges(connection, instrument[0], span)
        gap = replace(
            gap,
            last_id_before=gap.last_id_before or (before if gap.ended_by else None),
            first_id_after=gap.first_id_after or behind,
        )
    return plan_gap(instrument, gap, missing, store.known(connection, instrument[0], span), retry=retry)


def _judged(plan: Plan) -> Filled:
    return Filled(plan, plan.state, plan.detail)


async def _ask_all(
    connection: psycopg.Connection[Any],
    report: BackfillReport,
    endpoints: Mapping[str, Endpoint],
    on_progress: Callable[[Filled], None],
    asking: Asking,
) -> None:
    """Exchanges at once, each at its own pace; the one connection is used between their requests."""
    due: dict[str, list[Filled]] = {}
    for gap in report.gaps:
        if gap.plan.is_due:
            due.setdefault(gap.plan.exchange, []).append(gap)

    async def ask(exchange: str, gaps: list[Filled]) -> None:
        try:
            async with asking(exchange, endpoints.get(exchange, Endpoint())) as asked:
                for gap in gaps:
                    await _fill(connection, asked, gap, on_progress)
        except (UnansweredError, HistoryError) as error:
            report.errors[exchange] = str(error)
            structlog.get_logger().error("exchange left for the next run", exchange=exchange, error=str(error))

    async with asyncio.TaskGroup() as tasks:
        for exchange, gaps in due.items():
            tasks.create_task(ask(exchange, gaps))


async def _fill(
    connection: psycopg.Connection[Any], asked: Asked, gap: Filled, on_progress: Callable[[Filled], None]
) -> None:
    plan, history = gap.plan, HISTORIES[gap.plan.exchange]
    assert plan.before is not None
    below, gap.is_news = plan.before, True
    is_whole = False
    while not is_whole:
        count = history.page
        if plan.missing is not None and plan.after is not None:
            count = min(count, below - plan.after - 1)  # ids rise by one, so no more than these are wanted
        try:
            page = await asked.page(plan, below, count)
        except ccxt.BadSymbol as error:
            _end(connection, gap, "out_of_reach", f"the exchange no longer lists {plan.symbol} ({error})")
            return
        if not page:
            _end(connection, gap, "out_of_reach", f"the exchange tells no trade before id {below}")
            return
        lowest = min(trade_number(trade) for trade in page)
        is_whole = reaches(page, plan.after, plan.start)
        gap.rows += store.add(connection, plan, list(wanted(page, plan)), lowest)
        below = lowest
        on_progress(gap)
    left = _left(connection, plan)
    if left:
        _end(connection, gap, "out_of_reach", f"the exchange does not tell {left:,} of {plan.missing:,} missing ids")
    else:
        _end(connection, gap, "mended", "the exchange told all trades of it")


def _end(connection: psycopg.Connection[Any], gap: Filled, state: State, detail: str) -> None:
    gap.state, gap.detail = state, detail
    store.note(connection, gap.plan, state, detail)


def _left(connection: psycopg.Connection[Any], plan: Plan) -> int:
    """Ids that are still missing of a gap whose ids rise by one."""
    if plan.missing is None:
        return 0
    asked = Gap(
        start=plan.start,
        end=plan.end,
        seconds=0,
        last_id_before=str(plan.after),
        first_id_after=str(plan.before),
        ended_by={},
        ids_between=plan.missing,
    )
    missing = store.missing_ids(connection, plan.instrument_id, asked)
    return 0 if missing is None else missing.count


def trade_number(trade: Trade) -> int:
    """The id, which histories give as whole numbers."""
    assert trade.trade_id is not None
    return int(trade.trade_id)


def reaches(page: Iterable[Trade], after: int | None, start: datetime) -> bool:
    """Whether a page, the newest before it, goes back to the last trade known, or where none is, to the gap's start."""
    if after is None:
        return any(store.moment(trade.time) < start for trade in page)
    return any(trade_number(trade) <= after + 1 for trade in page)


def wanted(page: Iterable[Trade], plan: Plan) -> Iterator[Trade]:
    """Those of a page that lie in the gap."""
    assert plan.before is not None
    for trade in page:
        is_in = store.moment(trade.time) >= plan.start if plan.after is None else trade_number(trade) > plan.after
        if is_in and trade_number(trade) < plan.before:
            yield trade
