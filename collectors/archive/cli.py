"""``cryptopip archive``: months of the datalake as files, checked, and brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from collectors.archive.errors import ArchiveError
from collectors.archive.export import Exported, Progress, export_month, find_months
from collectors.archive.lock import only_one
from collectors.archive.month import Month
from collectors.config import DEFAULT_CONFIG, load_config
from collectors.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Months of the datalake as files: written, checked, brought back.")

Folder = Annotated[Path, typer.Argument(help="The archive's folder; each month has a folder in it.")]
Dsn = Annotated[str | None, typer.Option(help="Conninfo of the datalake, instead of the configured one.")]
ConfigFile = Annotated[Path, typer.Option(help="Configuration of this host, for its datalake.")]
Months = Annotated[list[str] | None, typer.Option("--month", help="Only this month, as 2026-11; may be given again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command("export")
def export_command(
    folder: Folder,
    *,
    month: Months = None,
    config: ConfigFile = DEFAULT_CONFIG,
    dsn: Dsn = None,
    jobs: Annotated[int, typer.Option(min=1, max=16, help="How many tables to write at once.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Write each month of every table as one CSV.gz, and again where the datalake has changed since.

    Example: cryptopip archive export /var/lib/cryptopip/archive --month 2026-11

    May be stopped at any moment; the next run goes on.

    Exit codes: 0 the archive holds what the datalake holds, 1 it does, but rows and digests of the datalake contradict
    each other, 2 wrong usage, 3 failure, also where another run writes this archive.
    """
    conninfo = conninfo_of(dsn, config)
    with only_one(folder):
        found, unknown = find_months(conninfo)
        for table in unknown:
            structlog.get_logger().warning("not archived, as this version does not know it", table=table)
        chosen = _chosen(found, month)
        results = []
        for one in chosen:
            with _progress() as on_progress:
                results.append(export_month(conninfo, folder, one, jobs=jobs, on_progress=on_progress))
            _log(results[-1])
    if as_json:
        typer.echo(msgspec.json.encode(results).decode())
    if any(result.problems for result in results):
        raise typer.Exit(1)


def conninfo_of(dsn: str | None, config: Path) -> str:
    """The one given, else that of the configured datalake."""
    return dsn if dsn is not None else load_config(config).require_sync().datalake


def _chosen(found: list[Month], names: list[str] | None) -> list[Month]:
    if not found:
        raise ArchiveError("the datalake holds no events and no coverage: there is nothing to archive")
    if not names:
        return found
    months = sorted({Month.named(name) for name in names})
    if lacking := [month.name for month in months if month not in found]:
        raise UsageError(
            f"the datalake has nothing of {', '.join(lacking)}; it has {found[0].name} to {found[-1].name}"
        )
    return months


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with rate and time left for each table on a terminal; elsewhere nothing, the line at the end suffices."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    tasks: dict[str, TaskID] = {}
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:

        def show(progress: Progress) -> None:
            if progress.table not in tasks:
                tasks[progress.table] = bars.add_task(f"{progress.month} {progress.table}", total=progress.of)
            bars.update(tasks[progress.table], completed=progress.rows)

        yield show


def _log(result: Exported) -> None:
    log = structlog.get_logger()
    log.info(
        "month archived" if result.written else "month unchanged",
        month=result.month,
        rows=result.rows,
        bytes=result.bytes,
        written=",".join(result.written) or "none",
    )
    for problem in result.problems:
        log.error(problem, month=result.month)
