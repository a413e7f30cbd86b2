"""``cryptopip expire``: drop from the datalake what its tables are not to keep longer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from collectors.config import DEFAULT_CONFIG, load_config
from collectors.retention.cli import said_bytes
from collectors.retention.expiry import Expired, Judged
from collectors.retention.expiry import expire as expire_datalake


def expire(
    *,
    config: Annotated[
        Path, typer.Option(help="Configuration of the datalake's host; its `expiry` says what to keep.")
    ] = (DEFAULT_CONFIG),
    check: Annotated[bool, typer.Option("--check", help="Only say what would go; nothing is changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Drop from the datalake the months that are older than their table keeps and that the verified archive holds.

    What is dropped is noted, its digests stay: the archive keeps its months, and copies are still compared with them.
    Rows that come later than that are counted (table late_rows), not merged.

    Example: cryptopip expire --check

    Exit codes: 0 all that is old enough went, 1 some of it stays (it is said why), 2 wrong usage, 3 failure.
    """
    settings = load_config(config)
    report = expire_datalake(settings.require_sync().datalake, settings.require_expiry(), check=check)
    typer.echo(msgspec.json.encode(report).decode() if as_json else said_of(report))
    if report.kept:
        raise typer.Exit(1)


def said_of(report: Expired) -> str:
    """The report for a person: what goes, what stays and why."""
    went = "would go" if report.checked_only else "went"
    lines = [_line(went, one) for one in report.dropped] + [_line("stays", one) for one in report.kept]
    lines.append(f"{len(report.dropped)} {went}, {said_bytes(report.freed)}; {len(report.kept)} stay")
    return "\n".join(lines)


def _line(verdict: str, one: Judged) -> str:
    why = f": {'; '.join(one.held)}" if one.held else ""
    return f"{verdict}: {one.channel} {one.month}, {said_bytes(one.bytes)}{why}"
