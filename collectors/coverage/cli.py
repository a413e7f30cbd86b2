"""``cryptopip continuity``: the gaps of the datalake, for people and for machines."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import psycopg
import typer
from rich.console import Console
from rich.table import Table

from collectors.config import DEFAULT_CONFIG, load_config
from collectors.coverage.continuity import check_continuity
from collectors.coverage.model import KINDS, Continuity, Kind, Query
from collectors.coverage.report import write_report
from collectors.errors import CryptopipError, UsageError
from collectors.events import CHANNELS

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def continuity(
    *,
    config: Annotated[Path, typer.Option(help="Configuration of this host, for its datalake.")] = DEFAULT_CONFIG,
    dsn: Annotated[str | None, typer.Option(help="Conninfo of the datalake, instead of the configured one.")] = None,
    since: Annotated[str | None, typer.Option(help="From when, ISO 8601; UTC unless it says otherwise.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to when; by default up to what was merged by now.")] = None,
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only these symbols; * and ? stand for any text: */USDT.")] = None,
    channel: Annotated[str | None, typer.Option(help=f"Only this channel: {', '.join(CHANNELS)}.")] = None,
    min_gap: Annotated[str, typer.Option(help="Smallest gap to list, with its unit: 500ms, 2s, 1m.")] = "0s",
    settle: Annotated[
        str, typer.Option(help="Without --until: how long ingestors and sync may take before missing data is a gap.")
    ] = "2m",
    rates: Annotated[
        bool, typer.Option("--rates", help="Also look for hours silent against their usual rate.")
    ] = False,
    read_rows: Annotated[
        bool, typer.Option("--read-rows", help="Also read every row: crossed quotes, clocks, percentiles of the lag.")
    ] = False,
    empty_hours: Annotated[bool, typer.Option("--empty-hours", help="Also list the hours without a row.")] = False,
    fail_on: Annotated[
        str | None, typer.Option(help=f"Kinds that end it with 1, by commas; all by default: {', '.join(KINDS)}.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the answer to this file as one HTML page too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Say for each instrument and channel when somebody was provably listening, and list the gaps.

    Example: cryptopip continuity --since 2026-11-01 --symbol 'BTC/*' --min-gap 1s

    Hours without a row between two dates: cryptopip continuity --since 2026-11-01 --until 2026-11-08 --empty-hours

    Exit codes: 0 nothing found, 1 something of --fail-on found (gaps that ids prove to be mended are none), 2 wrong
    usage, 3 failure.
    """
    failing = kinds_of(fail_on)
    query = Query(
        since=moment(since) if since else None,
        until=moment(until) if until else None,
        exchange=exchange,
        symbol=symbol,
        channel=channel,
        min_gap=seconds_of(min_gap),
        settle=seconds_of(settle),
        rates=rates,
        read_rows=read_rows,
        empty_hours=empty_hours,
    )
    conninfo = dsn if dsn is not None else load_config(config).require_sync().datalake
    try:
        with psycopg.connect(conninfo, application_name="cryptopip continuity", client_encoding="UTF8") as connection:
            connection.read_only = True
            answers = check_continuity(connection, query)
    except psycopg.Error as error:
        raise CryptopipError(f"cannot ask the datalake: {str(error).strip()}") from error
    if report is not None:
        write_report(report, answers)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(as_data(answers)) + b"\n")
    else:
        show(answers)
    if failing & {kind for answer in answers for kind in answer.found()}:
        raise typer.Exit(1)


def kinds_of(text: str | None) -> set[Kind]:
    """The kinds of trouble in a list with commas, all where it is None; raises UsageError."""
    if text is None:
        return set(KINDS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in KINDS]:
        raise UsageError(f"unknown kind {unknown[0]!r}: expected one of {', '.join(KINDS)}")
    return {kind for kind in KINDS if kind in names}


def moment(text: str) -> datetime:
    """A time in ISO 8601, UTC unless it carries a zone; raises UsageError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time: write it as 2026-11-01 or 2026-11-01T12:00:00+00:00") from error
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def seconds_of(text: str) -> float:
    """Seconds in a duration with its unit (``500ms``, ``2s``, ``1d``); raises UsageError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no duration: write a number and its unit (ms, s, m, h, d), as in 2s")
    return float(match[1]) * _UNIT[match[2]]


def as_data(answers: list[Continuity]) -> dict[str, object]:
    """The answer as ``--json`` prints it: totals and one entry for each instrument and channel."""
    recorded = sum(answer.recorded_seconds for answer in answers)
    return {
        "gap_count": sum(len(answer.gaps) for answer in answers),
        "gap_seconds": sum(gap.seconds for answer in answers for gap in answer.gaps),
        "mended_count": sum(gap.is_mended for answer in answers for gap in answer.gaps),
        "found": sorted({kind for answer in answers for kind in answer.found()}),
        "empty_hour_count": sum(len(answer.empty_hours) for answer in answers),
        "recorded_seconds": recorded,
        "covered_seconds": sum(answer.covered_seconds for answer in answers),
        "rows": sum(answer.rows for answer in answers),
        "channels": [msgspec.to_builtins(answer) for answer in answers],
    }


def show(answers: list[Continuity]) -> None:
    """Print one table of totals, and one of gaps where there are any."""
    console = Console()
    if not answers:
        console.print("Nothing was meant to be recorded, and nothing was, in the time asked for.")
        return
    totals = Table(title="Continuity")
    for name, justify in (("exchange", "left"), ("symbol", "left"), ("channel", "left"), ("until", "left")):
        totals.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("recorded s", "covered", "rows", "gaps", "longest s"):
        totals.add_column(name, justify="right")
    for answer in answers:
        totals.add_row(
            answer.exchange,
            answer.symbol,
            answer.channel,
            f"{answer.until:%Y-%m-%d %H:%M:%S}",
            f"{answer.recorded_seconds:,.0f}",
            "-" if answer.ratio is None else f"{100 * answer.ratio:.4f} %",
            f"{answer.rows:,}",
            str(len(answer.gaps)),
            f"{max((gap.seconds for gap in answer.gaps), default=0):,.3f}",
        )
    console.print(totals)
    _show_gaps(console, answers)
    _show_troubles(console, answers)
    _show_empty_hours(console, answers)


def _show_gaps(console: Console, answers: list[Continuity]) -> None:
    if not any(answer.gaps for answer in answers):
        console.print("No gaps.")
        return
    gaps = Table(title="Gaps (UTC)")
    for name in ("instrument", "channel", "kind", "from", "to", "seconds", "ids", "ended by", "mended"):
        gaps.add_column(name)
    for answer in answers:
        for gap in answer.gaps:
            gaps.add_row(
                f"{answer.exchange} {answer.symbol}",
                answer.channel,
                gap.kind,
                f"{gap.start:%Y-%m-%d %H:%M:%S.%f}"[:-3],
                f"{gap.end:%Y-%m-%d %H:%M:%S.%f}"[:-3],
                f"{gap.seconds:,.3f}",
                f"{gap.last_id_before or '-'} to {gap.first_id_after or '-'}",
                gap.causes,
                gap.mended,
            )
    console.print(gaps)


def _show_troubles(console: Console, answers: list[Continuity]) -> None:
    if not any(answer.troubles for answer in answers):
        return
    troubles = Table(title="While listening (UTC)")
    for name in ("instrument", "channel", "kind", "from", "to", "what"):
        troubles.add_column(name)
    for answer in answers:
        for each in answer.troubles:
            span = (f"{each.start:%Y-%m-%d %H:%M:%S}", f"{each.end:%Y-%m-%d %H:%M:%S}")
            troubles.add_row(f"{answer.exchange} {answer.symbol}", answer.channel, each.kind, *span, each.detail)
    console.print(troubles)


def _show_empty_hours(console: Console, answers: list[Continuity]) -> None:
    if not any(answer.empty_hours for answer in answers):
        return
    hours = Table(title="Hours without a row (UTC)")
    for name in ("instrument", "channel", "hour", "covered s"):
        hours.add_column(name)
    for answer in answers:
        for each in answer.empty_hours:
            covered = f"{each.covered_seconds:,.0f}"
            hours.add_row(f"{answer.exchange} {answer.symbol}", answer.channel, f"{each.hour:%Y-%m-%d %H:%M}", covered)
    console.print(hours)
