"""``cryptopip prune``: make room on an ingestor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from collectors.config import DEFAULT_CONFIG, load_config
from collectors.retention.run import Item, Report
from collectors.retention.run import prune as prune_ingestor

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def prune(
    *,
    config: Annotated[Path, typer.Option(help="Configuration of this host; its `retention` says what to keep.")] = (
        DEFAULT_CONFIG
    ),
    check: Annotated[bool, typer.Option("--check", help="Only say what would go; nothing is changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Drop from this ingestor what is old, in a verified backup or archive, and row for row in the datalake.

    Chunks of received rows go first, the journal's segments behind them. Where nothing was verified, nothing goes.
    Under disk pressure (min_free_gib) chunks may go earlier, if the datalake has their rows and the journals are kept.

    Example: cryptopip prune --check

    Exit codes: 0 all that may go went, 1 the datalake lacks rows of what may go otherwise (the hours are named), 2
    wrong usage, 3 failure.
    """
    settings = load_config(config)
    report = prune_ingestor(settings.require_retention(), settings.require_ingestor(), settings.journal, check=check)
    typer.echo(msgspec.json.encode(report).decode() if as_json else said_of(report))
    if report.lacking:
        raise typer.Exit(1)


def said_of(report: Report) -> str:
    """The report for a person: what goes, what stays and why, in which hours something is missing."""
    went = "would go" if report.checked_only else "went"
    until = f"{report.protected_until:%Y-%m-%d %H:%M} UTC" if report.protected_until else "never: nothing is verified"
    lines = [f"protected until {until}"]
    lines += [_line(went, item) for item in report.pruned]
    lines += [_line("stays", item) for item in report.kept]
    lines += [
        f"{one.exchange} {one.native_id} {one.channel} {one.hour:%Y-%m-%d %H:%M}: {one.rows:,} rows missing or other"
        for one in report.lacking
    ]
    lines.append(f"{len(report.pruned)} {went}, {said_bytes(report.freed)}; {len(report.kept)} stay")
    return "\n".join(lines)


def _line(verdict: str, item: Item) -> str:
    why = f": {'; '.join(item.held)}" if item.held else (", under disk pressure" if item.under_pressure else "")
    return f"{verdict}: {item.what}, {said_bytes(item.bytes)}{why}"


def said_bytes(count: int) -> str:
    """A size for a person, as in 1.5 GiB."""
    size = float(count)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
