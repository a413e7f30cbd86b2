"""``cryptopip sync``: one pull of every ingestor, or one every so often."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from collectors.config import DEFAULT_CONFIG, Sync, load_config
from collectors.coverage.cli import seconds_of
from collectors.errors import UsageError
from collectors.metrics import write_metrics
from collectors.notify import Notifier
from collectors.sync.errors import SyncError
from collectors.sync.metrics import metrics_of
from collectors.sync.run import Progress, SyncReport, sync_once
from collectors.sync.target import SyncRunningError

EXIT_WHOLE, EXIT_FOUND = 0, 1


def sync(
    *,
    config: Annotated[Path, typer.Option(help="Configuration of this host.")] = DEFAULT_CONFIG,
    every: Annotated[str | None, typer.Option(help="Run as a service, a pull every so often: 10s, 1m.")] = None,
    wait: Annotated[bool, typer.Option(help="Where another sync is at work, wait for it instead of leaving.")] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Also write metrics to this file, *.prom, for node_exporter's textfile collector."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Pull what the ingestors have loaded and merge it into the datalake, each event once.

    Example: cryptopip sync --config /etc/cryptopip/cryptopip.yml

    Exit codes: 0 all merged (or another sync is at work), 1 a source could not be merged or copies contradict each
    other, 2 wrong usage, 3 failure.
    """
    settings = load_config(config).require_sync()
    if every is not None:
        raise typer.Exit(serve(settings, _interval(every), metrics))
    notifier = Notifier()
    try:
        with _progress() as show:

            def moved_on(progress: Progress) -> None:
                notifier.moved_on()
                show(progress)

            report = sync_once(settings, wait=wait, on_progress=moved_on)
    except SyncRunningError as running:
        structlog.get_logger().info(str(running))
        raise typer.Exit(EXIT_WHOLE) from running
    _log(report)
    _tell(report, metrics)
    if as_json:
        json.dump(as_data(report), sys.stdout)
        sys.stdout.write("\n")
    raise typer.Exit(EXIT_FOUND if report.failed or report.conflicts else EXIT_WHOLE)


def _interval(text: str) -> float:
    seconds = seconds_of(text)
    if seconds == 0:
        raise UsageError("an interval of 0 would never rest: write one above it, as in 10s")
    return seconds


def serve(settings: Sync, seconds: float, metrics: Path | None = None) -> int:
    """Sync again and again, ``seconds`` from start to start, until SIGTERM or SIGINT; returns the exit code.

    A datalake that is down is tried again: the service has nothing else to do.
    """
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    notifier = Notifier()
    notifier.ready()
    while not stop.is_set():
        started = time.monotonic()
        try:
            report = sync_once(settings, on_progress=_feeding(notifier, stop))
        except _Stopped:
            break
        except SyncRunningError as running:
            structlog.get_logger().info(str(running))
        except SyncError as error:
            structlog.get_logger().error("sync failed, trying again", error=str(error), seconds=seconds)
        else:
            _log(report)
            _tell(report, metrics)
            notifier.status(f"{report.pulled} rows pulled, {report.inserted} new, {len(report.failed)} sources failed")
        _rest(stop, notifier, started + seconds)
    notifier.stopping()
    return EXIT_WHOLE


class _Stopped(Exception):  # noqa: N818 - not an error: the service was asked to end between two transactions
    pass


def _feeding(notifier: Notifier, stop: threading.Event) -> Callable[[Progress], None]:
    def feed(_: Progress) -> None:
        notifier.watchdog()
        if stop.is_set():
            raise _Stopped

    return feed


def _rest(stop: threading.Event, notifier: Notifier, until: float) -> None:
    """Sleep, telling the watchdog that sleeping is what is to be done."""
    notifier.watchdog()
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, 5.0)):
        notifier.watchdog()


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with rate and time left for each source on a terminal; elsewhere nothing, the lines at the end suffice."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    tasks: dict[str, TaskID] = {}
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:

        def show(progress: Progress) -> None:
            if progress.ingestor not in tasks:
                tasks[progress.ingestor] = bars.add_task(progress.ingestor, total=progress.of, rate="")
            task = tasks[progress.ingestor]
            bars.update(task, completed=progress.rows, total=progress.of)
            speed = bars.tasks[list(tasks).index(progress.ingestor)].speed
            bars.update(task, rate=f"{speed:,.0f} rows/s" if speed else "")

        yield show


def _tell(report: SyncReport, metrics: Path | None) -> None:
    if metrics is not None:
        write_metrics(metrics, metrics_of(report, datetime.now(UTC)))


def _log(report: SyncReport) -> None:
    """One line for each source that had something, and one for the whole."""
    for source in report.sources:
        counts = {
            f"{channel}_{name}": getattr(each, name)
            for channel, each in source.channels.items()
            for name in ("pulled", "inserted")
        }
        if source.batches:
            structlog.get_logger().info("merged", ingestor=source.ingestor, batches=source.batches, **counts)
    structlog.get_logger().info(
        "sync done",
        sources=len(report.sources),
        failed=len(report.failed),
        pulled=report.pulled,
        inserted=report.inserted,
        conflicts=report.conflicts,
        seconds=round(report.seconds, 3),
    )


def as_data(report: SyncReport) -> dict[str, Any]:
    """The report as plain data, with its totals."""
    totals = {"pulled": report.pulled, "inserted": report.inserted, "conflicts": report.conflicts}
    data: dict[str, Any] = msgspec.to_builtins(report)
    return data | totals
