"""Taking back what a restore has left that was killed or has failed."""

from __future__ import annotations

from pathlib import Path

from . import engine, server
from .journal import Journal, Phase, enter, read_journal, remove_journal, this_boot
from .restore import swap, take_back
from .run import Run, StuckError
from .source import UNPACKED, remove_unpacked


def mend(run: Run, journal: Journal) -> str:
    """Take back what a run before this one left; what was done, in words. Raises StuckError where nobody can."""
    wish = run.wish
    engine.end(wish.helper)
    if not run.container.is_running:
        if not wish.may_restart:
            raise StuckError(f"container {wish.container} does not run and restart is false: start it and run again.")
        engine.start(wish.container)
    connection = server.wait_for_server(run.options)
    server.end_sessions(connection)
    found = server.system_identifier(connection)
    if found != journal.system_identifier:
        raise StuckError(
            f"the restore journal in {wish.work} is of cluster {journal.system_identifier}, this is {found}: an "
            "interrupted restore of the other one was never taken back. Give each cluster a work_path of its own; "
            "remove the journal once the other cluster is gone for good."
        )
    if journal.is_suspect(this_boot()):
        server.take_back_settings(connection, journal.changes)
        enter(wish.work, journal, Phase.SUSPECT)
        raise StuckError(
            f"the host went down while a restore of {journal.database} had fsync off: any database of cluster {found} "
            "may be damaged without a sign of it. The settings are as they were before, but do not trust the data: "
            f"restore the newest base backup, or make the cluster anew, then remove {wish.work / 'journal.json'}."
        )
    swapped = journal.phase is Phase.SWAPPING and journal.restoring not in server.databases(connection)
    if swapped:
        swap(run, connection, journal)
        server.start_workers(run.options, journal.database)
    elif journal.replaced and journal.database in server.databases(connection):
        server.allow_connections(connection, journal.database, allowed=True)
        server.start_workers(run.options, journal.database)
    server.drop_database(connection, journal.restoring)
    take_back(run, connection, journal)
    remove_journal(wish.work)
    return (
        f"a restore of {journal.database} had been interrupted in phase {journal.phase.value}: "
        + ("its last step was finished" if swapped else f"{journal.restoring} was dropped")
        + " and every setting is as before"
    )


def remove_leftovers(run: Run, *, check: bool) -> str | None:
    """Take away what a run left that was killed before it wrote a journal; in words, None where there is nothing."""
    found = []
    if engine.exists(run.wish.helper):
        found.append(f"container {run.wish.helper}")
        if not check:
            engine.end(run.wish.helper)
    if (run.wish.work / UNPACKED).exists():
        found.append(f"{run.wish.work / UNPACKED}")
        if not check:
            remove_unpacked(run.wish.work)
    return f"an interrupted run had left {' and '.join(found)}" if found else None


def pending_journal(work: Path) -> Journal | None:
    """The journal of a restore that was interrupted, None where there is none."""
    return read_journal(work) if work.is_dir() else None


def abort(run: Run) -> str:
    """After a failure: back to where the run began. Returns what was done; raises where that fails too."""
    journal = pending_journal(run.wish.work)
    if journal is None:
        engine.end(run.wish.helper)
        return "Nothing was changed."
    run.container = engine.inspect(run.wish.container)
    mend(run, journal)
    return "Everything was taken back: the new database was dropped, every setting is as before."
