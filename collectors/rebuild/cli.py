"""``cryptopip rebuild``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from collectors.rebuild.plan import Life
from collectors.rebuild.run import Report
from collectors.rebuild.run import rebuild as rebuild_from


def rebuild(
    journals: Annotated[
        list[Path],
        typer.Argument(
            help="Folders with journals of one or more ingestors, at any depth: local ones or copies.",
            exists=True,
            file_okay=False,
        ),
    ],
    datalake: Annotated[str, typer.Option(help="Conninfo of the datalake: migrated, with instruments, else empty.")],
    scratch: Annotated[
        str,
        typer.Option(help="Conninfo of an empty ingestor database, as its owner; filled and emptied epoch by epoch."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make an empty datalake from journals alone, equal to the one they were merged into.

    A run that was ended goes on where it was, with the same databases. Events that the wire gives no time have that of
    their first receipt here: `cryptopip digest compare` may tell such hours apart beside a full hour. Without a
    datalake to fill, the same gives digests of journals: rebuild into a database of its own and export them.

    Example: cryptopip rebuild /srv/journals/ing1 /srv/journals/ing2 --datalake "dbname=datalake"
    --scratch "dbname=scratch"

    Exit codes: 0 every frame is in the datalake, 1 some could not be (damage, missing segments, parked frames,
    contradictions), 2 wrong usage, 3 failure.
    """
    report = rebuild_from(journals, datalake, scratch, on_epoch=_show)
    typer.echo(msgspec.json.encode(report).decode() if as_json else said_of(report))
    if not report.is_whole:
        raise typer.Exit(1)


def _show(life: Life, number: int, of: int) -> None:
    typer.echo(f"{number} of {of}: {life.ingestor}/{life.stream} epoch {life.epoch}", err=True)


def said_of(report: Report) -> str:
    """The outcome for a person."""
    lines = [
        f"{report.inserted:,} rows merged of {report.rows:,} in {report.epochs:,} epochs"
        + (f", {report.done_before:,} of them merged by an earlier run" if report.done_before else "")
    ]
    for count, what in (
        (report.parked, "frames could not be decoded, or have an instrument that the universe lacks"),
        (report.rejected, "events have a time that cannot be right"),
        (report.damages, "damaged or missing stretches of the journals"),
        (report.conflicts, "rows contradict the copy that is kept, see table sync_conflicts"),
    ):
        if count:
            lines.append(f"{count:,} {what}")
    lines += [f"missing: segment {name}" for name in report.missing]
    return "\n".join(lines)
