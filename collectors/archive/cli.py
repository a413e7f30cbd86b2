"""``cryptopip archive``: months of the datalake as files, checked, and brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from collectors.archive.bundle import bundle_month
from collectors.archive.database import Source, check_schema, months_with_data, one_state, reading, session
from collectors.archive.errors import ArchiveError
from collectors.archive.export import Exported, Progress, export_month, find_months
from collectors.archive.lock import only_one
from collectors.archive.month import Month
from collectors.archive.protect import protect
from collectors.archive.restore import Imported, import_month
from collectors.archive.tardis import export_tardis
from collectors.archive.verify import Checked, Finding, archived_months, unarchived, verify_month
from collectors.archive.verify_formats import verify_formats
from collectors.config import DEFAULT_CONFIG, load_config
from collectors.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Months of the datalake as files: written, checked, brought back.")

Folder = Annotated[Path, typer.Argument(help="The archive's folder; each month has a folder in it.")]
Dsn = Annotated[str | None, typer.Option(help="Conninfo of the datalake, instead of the configured one.")]
ConfigFile = Annotated[Path, typer.Option(help="Configuration of this host, for its datalake.")]
Months = Annotated[list[str] | None, typer.Option("--month", help="Only this month, as 2026-11; may be given again.")]
Jobs = Annotated[int, typer.Option(min=1, max=16, help="How many files to write at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command("export")
def export_command(
    folder: Folder,
    *,
    month: Months = None,
    config: ConfigFile = DEFAULT_CONFIG,
    dsn: Dsn = None,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Write each month of every table as one CSV.gz, and the month as one .tar.gz; again where it has changed.

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
            if not results[-1].is_left:
                bundle_month(folder, one)
            _log(results[-1])
    if as_json:
        typer.echo(msgspec.json.encode(results).decode())
    if any(result.problems for result in results):
        raise typer.Exit(1)


@app.command("parquet")
def parquet_command(
    folder: Folder,
    *,
    month: Months = None,
    config: ConfigFile = DEFAULT_CONFIG,
    dsn: Dsn = None,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Write each month's events as Parquet, a file for each exchange, channel and day; again where they have changed.

    Example: cryptopip archive parquet /var/lib/cryptopip/archive --month 2026-11

    Exit codes: 0 the files hold what the datalake holds, 1 some could not be written (they are named), 2 wrong usage,
    3 failure, also where another run writes this archive.
    """
    from collectors.archive.parquet import export_parquet  # noqa: PLC0415 - a second that other commands need not wait

    with only_one(folder), one_state(conninfo_of(dsn, config), "parquet", jobs) as source:
        _write_months(source, folder, month, export_parquet, what="parquet", as_json=as_json)


@app.command("tardis")
def tardis_command(
    folder: Folder,
    *,
    month: Months = None,
    config: ConfigFile = DEFAULT_CONFIG,
    dsn: Dsn = None,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Write each month's events as Tardis' daily CSV.gz for each instrument; again where they have changed.

    Example: cryptopip archive tardis /var/lib/cryptopip/archive --month 2026-11

    Exit codes: 0 the files hold what the datalake holds, 1 some could not be written (they are named), 2 wrong usage,
    3 failure, also where another run writes this archive.
    """
    with only_one(folder), one_state(conninfo_of(dsn, config), "tardis", jobs) as source:
        _write_months(source, folder, month, export_tardis, what="tardis", as_json=as_json)


class _Result(Protocol):
    @property
    def problems(self) -> list[str]: ...


def _write_months(
    source: Source,
    folder: Path,
    names: list[str] | None,
    write: Callable[[Source, Path, Month, Callable[[Progress], None]], _Result],
    *,
    what: str,
    as_json: bool,
) -> None:
    results: list[_Result] = []
    log = structlog.get_logger()
    for one in _chosen(months_with_data(source.connection), names):
        with _progress() as on_progress:
            result = write(source, folder, one, on_progress)
        log.info(f"{what} written", **msgspec.to_builtins(result) | {"problems": len(result.problems)})
        for problem in result.problems:
            log.error(problem, month=one.name)
        results.append(result)
    if as_json:
        typer.echo(msgspec.json.encode(results).decode())
    if any(result.problems for result in results):
        raise typer.Exit(1)


@app.command("verify")
def verify_command(
    folder: Folder,
    *,
    month: Months = None,
    config: ConfigFile = DEFAULT_CONFIG,
    dsn: Dsn = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Read files and manifests alone, without asking the datalake.")
    ] = False,
    allow_newer: Annotated[
        bool, typer.Option("--allow-newer", help="What the datalake has merged since the export is no finding.")
    ] = False,
    protect_dsn: Annotated[
        str | None,
        typer.Option(
            "--protect",
            metavar="CONNINFO",
            help="Tell the datalake, as a login that may, up to when the archive holds everything: ingestors prune"
            " below.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read every file of the archive, compare it with the manifest, and the manifest with the datalake.

    Parquet and Tardis' files likewise, with the lists written with them; ingestors may rely on the months' own alone.

    Example: cryptopip archive verify /var/lib/cryptopip/archive

    Exit codes: 0 all agree, 1 something differs (it is named), 2 wrong usage, 3 failure.
    """
    if protect_dsn is not None and (month or files_only):
        raise UsageError("--protect speaks for the whole archive: leave out --month and --files-only")
    archived = archived_months(folder)
    months = _among(archived, month, folder)
    checked: list[Checked] = []
    lacking: list[Finding] = []
    beside: list[Finding] = []
    if files_only:
        checked = [verify_month(folder, one, None) for one in months]
        beside = [found for one in months for found in verify_formats(folder, one, None)]
    else:
        with session(conninfo_of(dsn, config), "verify") as connection, reading(connection):
            check_schema(connection)
            checked = [verify_month(folder, one, connection) for one in months]
            beside = [found for one in months for found in verify_formats(folder, one, connection)]
            lacking = [] if month else unarchived(connection, archived)
    until = None if protect_dsn is None else protect(protect_dsn, checked, lacking)
    findings = [*(finding for one in checked for finding in one.findings), *beside, *lacking]
    if as_json:
        typer.echo(msgspec.json.encode({"months": checked, "findings": findings, "protected_until": until}).decode())
    else:
        _show(checked, findings)
        if protect_dsn is not None:
            typer.echo(f"Protected until: {'never' if until is None else until.isoformat()}")
    if any(not (finding.newer and allow_newer) for finding in findings):
        raise typer.Exit(1)


@app.command("import")
def import_command(
    folder: Folder,
    *,
    month: Annotated[list[str], typer.Option("--month", help="The month, as 2026-11; may be given again.")],
    config: ConfigFile = DEFAULT_CONFIG,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Bring months back into a datalake, exactly; a table whose rows are there already is left as it is.

    Where the datalake has other events of a month nothing is changed. What sync has merged so far (watermarks) is not
    in an archive: the next sync asks the ingestors for all that they still hold, and finds it there.

    Example: cryptopip archive import /var/lib/cryptopip/archive --month 2026-10 --dsn 'host=db2 dbname=datalake'

    May be stopped at any moment; the next run completes it.

    Exit codes: 0 the datalake holds the months, 2 wrong usage, 3 refused or failed.
    """
    conninfo = conninfo_of(dsn, config)
    log = structlog.get_logger()
    results: list[Imported] = []
    for one in _among(archived_months(folder), month, folder):

        def on_table(table: str, rows: int, name: str = one.name) -> None:
            log.info("importing", month=name, table=table, rows=rows)

        results.append(import_month(conninfo, folder, one, on_table))
        inserted = sum(results[-1].inserted.values())
        log.info("month imported", month=one.name, rows=inserted, already=",".join(results[-1].present) or "none")
    if as_json:
        typer.echo(msgspec.json.encode(results).decode())


def _among(archived: list[Month], names: list[str] | None, folder: Path) -> list[Month]:
    months = sorted({Month.named(name) for name in names}) if names else archived
    if lacking := [month.name for month in months if month not in archived]:
        raise UsageError(f"{folder} has no month {', '.join(lacking)}: it has {_span(archived)}")
    if not months:
        raise ArchiveError(f"{folder} holds no month: export first, or give the folder in which the months lie")
    return months


def _span(months: list[Month]) -> str:
    return f"{months[0].name} to {months[-1].name}" if months else "none"


def _show(checked: list[Checked], findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(f"{finding.month} {finding.what}: {finding.problem}")
    rows, size = sum(one.rows for one in checked), sum(one.bytes for one in checked)
    verdict = f"{len(findings)} findings" if findings else "All agree"
    typer.echo(f"{verdict}: {len(checked)} months, {rows:,} rows, {size:,} bytes.")


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
