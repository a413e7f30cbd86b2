"""``cryptopip backfill``: fill gaps of trades from what the exchanges still tell of the past."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psycopg
import structlog
import typer
from rich.console import Console
from rich.table import Table

from collectors.backfill.run import BackfillReport, BackfillRunningError, Filled, backfill
from collectors.config import DEFAULT_CONFIG, Config, load_config
from collectors.coverage.cli import moment, seconds_of
from collectors.coverage.model import Query
from collectors.errors import CryptopipError


def backfill_command(
    *,
    config: Annotated[
        Path, typer.Option(help="Configuration of this host, for its datalake and addresses of exchanges.")
    ] = DEFAULT_CONFIG,
    dsn: Annotated[str | None, typer.Option(help="Conninfo of the datalake, instead of the configured one.")] = None,
    since: Annotated[str | None, typer.Option(help="From when, ISO 8601; UTC unless it says otherwise.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to when; by default up to what was merged by now.")] = None,
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only these symbols; * and ? stand for any text: */USDT.")] = None,
    min_gap: Annotated[str, typer.Option(help="Smallest gap to fill, with its unit: 500ms, 2s, 1m.")] = "0s",
    settle: Annotated[
        str, typer.Option(help="Without --until: how long ingestors and sync may take before missing data is a gap.")
    ] = "2m",
    retry: Annotated[bool, typer.Option("--retry", help="Ask again for gaps that were out of reach.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only list the gaps and what would be tried; no exchange is asked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Fill gaps of trades from each exchange's own history, within its limits.

    What is added is marked with the ingestor backfill:rest; gaps that the exchange cannot fill stay listed. It may be
    stopped at any moment, and goes on from there. Run `cryptopip derive` afterwards for the bars.

    Example: cryptopip backfill --since 2026-11-01 --check

    Exit codes: 0 no gap is left (or another run is at work), 1 gaps are left, 2 wrong usage, 3 failure, also where an
    exchange did not answer.
    """
    query = Query(
        since=moment(since) if since else None,
        until=moment(until) if until else None,
        exchange=exchange,
        symbol=symbol,
        min_gap=seconds_of(min_gap),
        settle=seconds_of(settle),
    )
    settings = load_config(config) if dsn is None or config.exists() else Config()
    conninfo = dsn if dsn is not None else settings.require_sync().datalake
    try:
        with psycopg.connect(
            conninfo, application_name="cryptopip backfill", client_encoding="UTF8", autocommit=True
        ) as connection:
            connection.execute("SET client_connection_check_interval = '2s'")
            report = backfill(
                connection, query, settings.exchanges, check=check, retry=retry, on_progress=_log_progress
            )
    except BackfillRunningError as running:
        structlog.get_logger().info(str(running))
        raise typer.Exit(running.exit_code) from running
    except psycopg.Error as error:
        raise CryptopipError(f"the datalake failed: {str(error).strip()}") from error
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(as_data(report, check=check)) + b"\n")
    else:
        show(report, check=check)
    if report.errors:
        raise CryptopipError("\n".join(f"{name}: {error}" for name, error in sorted(report.errors.items())))
    if report.left:
        raise typer.Exit(1)


def _log_progress(gap: Filled) -> None:
    structlog.get_logger().info(
        "filling",
        exchange=gap.plan.exchange,
        symbol=gap.plan.symbol,
        gap=f"{gap.plan.start:%Y-%m-%dT%H:%M:%S}/{gap.plan.end:%Y-%m-%dT%H:%M:%S}",
        rows=gap.rows,
    )


def as_data(report: BackfillReport, *, check: bool = False) -> dict[str, Any]:
    """The answer as ``--json`` prints it; ``changed``: what was done, or with ``check`` would be tried, changes it."""
    changed = any(gap.plan.is_due if check else gap.is_news for gap in report.gaps)
    return {
        "changed": changed,
        "rows": report.rows,
        "gap_count": len(report.gaps),
        "left_count": len(report.left),
        "errors": report.errors,
        "gaps": [
            {
                "exchange": gap.plan.exchange,
                "symbol": gap.plan.symbol,
                "start": gap.plan.start,
                "end": gap.plan.end,
                "missing_ids": gap.plan.missing,
                "state": gap.state,
                "detail": gap.detail,
                "rows": gap.rows,
            }
            for gap in report.gaps
        ],
    }


def show(report: BackfillReport, *, check: bool = False) -> None:
    """One line for each gap, and a sentence."""
    console = Console()
    if not report.gaps:
        console.print("No gaps.")
        return
    table = Table(title="Gaps of trades (UTC)")
    for name in ("instrument", "from", "to", "ids missing", "rows added", "outcome"):
        table.add_column(name, justify="right" if name in ("ids missing", "rows added") else "left")
    for gap in report.gaps:
        outcome = {None: "stays", "open": "to fill" if check else "not done"}.get(gap.state, gap.state)
        table.add_row(
            f"{gap.plan.exchange} {gap.plan.symbol}",
            f"{gap.plan.start:%Y-%m-%d %H:%M:%S.%f}"[:-3],
            f"{gap.plan.end:%Y-%m-%d %H:%M:%S.%f}"[:-3],
            "-" if gap.plan.missing is None else f"{gap.plan.missing:,}",
            f"{gap.rows:,}",
            f"{(outcome or '').replace('_', ' ')}: {gap.detail}",
        )
    console.print(table)
    verb = "would be tried" if check else "are mended"
    number = sum(gap.plan.is_due for gap in report.gaps) if check else len(report.gaps) - len(report.left)
    console.print(f"{number:,} of {len(report.gaps):,} gaps {verb}; {report.rows:,} trades added.")
