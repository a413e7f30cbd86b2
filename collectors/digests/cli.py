"""``cryptopip digest``: say whether two histories are equal, and in which hours they are not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from collectors.coverage.cli import moment
from collectors.digests.compare import Difference, Summary, compare
from collectors.digests.model import Digest, write_digests
from collectors.digests.source import Source, Window, Workshop
from collectors.errors import CryptopipError, UsageError
from collectors.files import replace_file

_SOURCE = (
    "An exported file, a conninfo (the digests that the datalake keeps), rows:CONNINFO (computed from its rows),"
    " archive:FOLDER (computed from its files), or journal:FOLDER:FOLDER (merged; needs --rebuild-into)."
)

app = typer.Typer(no_args_is_help=True, help="Count and hash per instrument, channel and hour: compare histories.")

Since = Annotated[str | None, typer.Option(help="From this full hour on, ISO 8601; UTC unless it says otherwise.")]
Until = Annotated[str | None, typer.Option(help="Up to this full hour.")]
Exchange = Annotated[str | None, typer.Option(help="Only this exchange.")]
Channel = Annotated[str | None, typer.Option(help="Only this channel.")]


RebuildInto = Annotated[
    str | None, typer.Option(help="For journals: conninfo of a migrated datalake with instruments, else empty.")
]
Scratch = Annotated[
    str | None, typer.Option(help="For journals: conninfo of an empty ingestor database, filled and emptied.")
]


def _workshop(rebuild_into: str | None, scratch: str | None) -> Workshop | None:
    if (rebuild_into is None) != (scratch is None):
        raise UsageError("--rebuild-into and --scratch go together: journals are merged from the one into the other")
    return Workshop(rebuild_into, scratch) if rebuild_into is not None and scratch is not None else None


def _window(since: str | None, until: str | None, exchange: str | None, channel: str | None) -> Window:
    return Window(moment(since) if since else None, moment(until) if until else None, exchange, channel)


@app.command("compare")
def compare_command(
    a: Annotated[str, typer.Argument(help=_SOURCE)],
    b: Annotated[str, typer.Argument(help=_SOURCE)],
    *,
    since: Since = None,
    until: Until = None,
    exchange: Exchange = None,
    channel: Channel = None,
    rebuild_into: RebuildInto = None,
    scratch: Scratch = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each difference, and a last one with the totals.")
    ] = False,
) -> None:
    """Say that two histories are equal, or name the hours that differ.

    Where an exchange sends no time, an event's hour is that of its first receipt: histories merged from other copies
    may then differ in the hours beside a full hour, with equal rows over both.

    Examples:

    cryptopip digest compare 'service=datalake' 'rows:service=datalake' (has a row changed since it was merged?)

    cryptopip digest compare before.jsonl 'host=restored dbname=datalake' --until 2026-11-01

    cryptopip digest compare archive:/var/lib/cryptopip/archive 'service=datalake' --until 2026-11-01

    cryptopip digest compare journal:/srv/ing1:/srv/ing2 'service=datalake' --rebuild-into 'dbname=new'
    --scratch 'dbname=scratch'

    A restored backup is a datalake: give its conninfo.

    Exit codes: 0 equal, 1 different, 2 wrong usage, 3 failure, also where neither side has a row.
    """
    window = _window(since, until, exchange, channel)
    summary = Summary()
    workshop = _workshop(rebuild_into, scratch)
    for difference in compare(Source(a, workshop).digests(window), Source(b, workshop).digests(window), summary):
        typer.echo(msgspec.json.encode(difference).decode() if as_json else line_of(difference))
    if not summary.hours:
        raise CryptopipError("neither A nor B has a row in the time asked for: nothing was compared")
    if as_json:
        typer.echo(msgspec.json.encode(summary).decode())
    else:
        typer.echo(total_of(summary))
    if summary.different:
        raise typer.Exit(1)


@app.command("export")
def export(
    source: Annotated[str, typer.Argument(help=_SOURCE)],
    file: Annotated[Path | None, typer.Argument(help="Where to; by default the standard output.")] = None,
    *,
    since: Since = None,
    until: Until = None,
    exchange: Exchange = None,
    channel: Channel = None,
    rebuild_into: RebuildInto = None,
    scratch: Scratch = None,
) -> None:
    """Write digests as lines of JSON, to be compared later.

    Example: cryptopip digest export 'service=datalake' before.jsonl --until 2026-11-01
    """
    digests = Source(source, _workshop(rebuild_into, scratch)).digests(_window(since, until, exchange, channel))
    if file is None:
        write_digests(digests, sys.stdout.buffer)
        return
    with replace_file(file) as target:
        written = write_digests(digests, target)
    typer.echo(f"{file}: {written:,} digests")


def line_of(difference: Difference) -> str:
    """One difference for a person."""
    what = difference.what
    said = f"{what.exchange} {what.native_id} {what.channel} {what.hour:%Y-%m-%d %H:%M}"
    if difference.a and difference.b and difference.a.rows == difference.b.rows:
        return f"{said}: {what.rows:,} rows in both, with other content"
    return f"{said}: {_rows(difference.a)} in A, {_rows(difference.b)} in B"


def _rows(digest: Digest | None) -> str:
    return f"{digest.rows:,} rows" if digest else "no rows"


def total_of(summary: Summary) -> str:
    """The verdict for a person."""
    if not summary.different:
        return f"Equal: {summary.rows_a:,} rows in {summary.hours:,} hours of instruments and channels."
    return (
        f"Different in {summary.different:,} of {summary.hours:,} hours of instruments and channels"
        f" ({summary.rows_a:,} rows in A, {summary.rows_b:,} in B)."
    )
