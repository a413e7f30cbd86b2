"""The command ``cryptopip``: assembles the rooms' commands and turns errors into one clear message.

Exit codes: 0 whole, 1 found something, 2 wrong usage or configuration, 3 and above failure.
"""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
import typer
from typer.core import TyperGroup

from collectors import __version__, log, universe_cli
from collectors.archive import cli as archive_cli
from collectors.backfill.cli import backfill_command
from collectors.coverage.cli import continuity
from collectors.decode import UnknownExchangeError
from collectors.derived.cli import derive_command
from collectors.digests import cli as digests_cli
from collectors.errors import CryptopipError, UsageError
from collectors.journal import JournalError
from collectors.journal import cli as journal_cli
from collectors.load.cli import load, reload, replay
from collectors.offsite import cli as offsite_cli
from collectors.rebuild.cli import rebuild
from collectors.record.cli import record
from collectors.retention.cli import prune
from collectors.retention.expiry_cli import expire
from collectors.simulator.cli import simulate
from collectors.sync.cli import sync
from collectors.venues_cli import venues

# What an operator can act on; anything else is a fault of the program and shows its traceback.
_ANSWERS = (CryptopipError, UnknownExchangeError, JournalError, psycopg.Error, OSError)


class Commands(TyperGroup):
    """The one place where an error becomes a message and an exit code; ``--debug`` shows the traceback instead."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors the operator can act on are shown as text alone."""
        try:
            return super().invoke(ctx)
        except _ANSWERS as error:
            if ctx.params["debug"]:
                raise
            typer.echo(log.hide_in_text(message_of(error)), err=True)
            ctx.exit(exit_code_of(error))


def exit_code_of(error: Exception) -> int:
    """2 for wrong usage, the error's own where it has one, else 3."""
    if isinstance(error, UnknownExchangeError):
        return UsageError.exit_code
    return error.exit_code if isinstance(error, CryptopipError) else CryptopipError.exit_code


def message_of(error: Exception) -> str:
    """The error's own text; for those of PostgreSQL and the system, with what failed in front."""
    if isinstance(error, psycopg.OperationalError):
        return f"the database cannot be used: {error}".strip()
    if isinstance(error, psycopg.Error):
        return f"the database refused: {error}".strip()
    return f"the system refused: {error}" if isinstance(error, OSError) else str(error)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Record crypto market data without loss, and say what is covered.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cryptopip {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Log more, and show where an error came from.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Record crypto market data without loss, and say what is covered."""
    log.setup(debug=debug)


for command in (record, load, reload, prune, expire, sync, rebuild, continuity, replay, simulate, venues):
    app.command(command.__name__)(command)
app.command("derive")(derive_command)
app.command("backfill")(backfill_command)
app.add_typer(journal_cli.app, name="journal")
app.add_typer(universe_cli.app, name="universe")
app.add_typer(digests_cli.app, name="digest")
app.add_typer(archive_cli.app, name="archive")
app.add_typer(offsite_cli.app, name="offsite")


def main() -> None:
    """Entry point of the ``cryptopip`` script."""
    app()
