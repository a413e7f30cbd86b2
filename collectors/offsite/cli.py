"""``cryptopip offsite``: folders copied to a remote, checked there, fetched from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
import typer

from collectors.offsite.check import verify_copy
from collectors.offsite.config import DEFAULT_OFFSITE, load_offsite
from collectors.offsite.copy import copy_source
from collectors.offsite.errors import OffsiteError
from collectors.offsite.fetch import fetch
from collectors.offsite.prune import prune

app = typer.Typer(
    no_args_is_help=True, help="Folders on a remote of rclone: copied, checked, fetched, never overwritten."
)

Name = Annotated[str, typer.Argument(help="The copy, as the configuration names it.")]
Names = Annotated[
    list[str] | None, typer.Argument(help="Copies, as the configuration names them; all where none is given.")
]
ConfigFile = Annotated[Path, typer.Option(help="What this host copies, and where.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command("copy")
def copy_command(name: Names = None, *, config: ConfigFile = DEFAULT_OFFSITE, as_json: AsJson = False) -> None:
    """Copy what the remote has not yet, and compare it there; what is there is never changed.

    Example: cryptopip offsite copy archive

    May be stopped at any moment; the next run goes on.

    Exit codes: 0 all is there, 1 some files could not be copied (they are named), 2 wrong usage, 3 failure.
    """
    offsite = load_offsite(config)
    results, failed = [], []
    for one in name or list(offsite.copies):
        offsite.copy(one)
    for one in name or list(offsite.copies):
        try:
            results.append(copy_source(offsite, one))
        except OffsiteError as error:  # the others are none the worse for it
            structlog.get_logger().error(str(error), copy=one)
            failed.append(one)
            continue
        _log("copied", results[-1], problems=len(results[-1].problems))
        for problem in results[-1].problems:
            structlog.get_logger().error(problem, copy=one)
    if as_json:
        typer.echo(msgspec.json.encode(results).decode())
    if failed:
        raise OffsiteError(f"not copied off-site: {', '.join(failed)}")
    if any(result.problems for result in results):
        raise typer.Exit(1)


@app.command("verify")
def verify_command(
    name: Names = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that was ever copied, not only the newest list.")] = False,
    config: ConfigFile = DEFAULT_OFFSITE,
    as_json: AsJson = False,
) -> None:
    """Compare every object that the newest list names with what was copied; damage of the same size is seen too.

    Example: cryptopip offsite verify archive

    Exit codes: 0 all agree, 1 something differs (it is named), 2 wrong usage, 3 failure.
    """
    offsite = load_offsite(config)
    results = [verify_copy(offsite, one, every=every) for one in name or list(offsite.copies)]
    if as_json:
        typer.echo(msgspec.json.encode(results).decode())
    else:
        for result in results:
            for finding in result.findings:
                typer.echo(f"{result.copy} {finding.object}: {finding.problem}")
            verdict = f"{len(result.findings)} findings" if result.findings else "All agree"
            typer.echo(
                f"{result.copy}: {verdict}: {result.objects:,} objects, {result.bytes:,} bytes, list {result.index};"
                f" {result.waiting:,} files wait for the next copy."
            )
    if any(result.findings for result in results):
        raise typer.Exit(1)


@app.command("fetch")
def fetch_command(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Where the files go; made where it is not there.")],
    *,
    below: Annotated[str, typer.Option(help="Only this path below the source, as 2026-11.")] = "",
    index: Annotated[
        str, typer.Option(help="Of this list (its beginning is enough, as 20261127T01), not the newest.")
    ] = "",
    config: ConfigFile = DEFAULT_OFFSITE,
    as_json: AsJson = False,
) -> None:
    """Fetch files as they were copied, under their own names, each compared with its SHA-256.

    Example: cryptopip offsite fetch archive /var/tmp/archive --below 2026-11

    May be stopped at any moment; the next run goes on.

    Exit codes: 0 the folder holds the files, 2 wrong usage, 3 refused or failed.
    """
    result = fetch(load_offsite(config), name, folder, below=below.strip("/"), at=index)
    _log("fetched", result)
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())


@app.command("prune")
def prune_command(
    name: Name,
    *,
    keep_days: Annotated[int, typer.Option(min=1, help="Keep what the source held within the last so many days.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    config: ConfigFile = DEFAULT_OFFSITE,
    as_json: AsJson = False,
) -> None:
    """Remove old lists from the remote, and the objects that no other list names; the newest list always stays.

    Example: cryptopip offsite prune archive --keep-days 90 --dry-run

    Exit codes: 0 done (or nothing to do), 2 wrong usage, 3 refused or failed.
    """
    result = prune(load_offsite(config), name, keep_days=keep_days, dry_run=dry_run)
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
        return
    for one in (*result.indexes, *result.objects):
        typer.echo(one)
    done = "would be removed" if dry_run else "removed"
    typer.echo(
        f"{len(result.indexes)} lists and {len(result.objects)} objects of {result.bytes:,} bytes {done};"
        f" {result.kept_indexes} lists stay."
    )


def _log(event: str, result: Any, **more: Any) -> None:
    structlog.get_logger().info(event, **msgspec.to_builtins(result) | more)
