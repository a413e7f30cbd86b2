"""``cryptopip universe``: check the universe file, and carry it into a database."""

from __future__ import annotations

import asyncio
import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from collectors.config import Endpoint, load_config
from collectors.errors import CryptopipError, UsageError
from collectors.universe import Instrument, Universe, UniverseError, load_universe
from collectors.universe_load import Change, load_universe_into

app = typer.Typer(help="The list of what is recorded: check it, load it.", no_args_is_help=True)

UniverseFile = Annotated[Path, typer.Argument(metavar="FILE", help="The universe, for example files/universe.yml.")]


class Kind(Enum):
    """Which tables a database has."""

    INGESTOR = "ingestor"
    DATALAKE = "datalake"


@app.command()
def validate(
    file: UniverseFile,
    online: Annotated[bool, typer.Option("--online", help="Also ask each exchange for its market list.")] = False,
    config: Annotated[Path | None, typer.Option(help="A host's configuration, for the addresses of exchanges.")] = None,
    exchange: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=URL]", help="Ask only this one, at the REST address URL; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Check a universe file (/dev/stdin is one too) and name all its mistakes.

    Exit code 0 where it is right, 1 where it has mistakes, 3 where only an exchange could not be asked.

    Example: cryptopip universe validate files/universe.yml --online
    """
    if (exchange or config) and not online:
        raise UsageError("--exchange and --config say whom to ask and where: add --online")
    instruments: list[Instrument] = []
    silent: list[str] = []
    try:
        universe = load_universe(file)
        instruments = universe.instruments
        problems: list[str] = []
        if online:
            problems, silent = _ask_exchanges(universe, _endpoints(universe, config, exchange))
    except UniverseError as error:
        problems = error.problems
    if as_json:
        said = {"file": str(file), "instruments": len(instruments), "problems": problems, "silent": silent}
        typer.echo(json.dumps(said))
    else:
        for line in [f"{file}: {problem}" for problem in problems] + silent:
            typer.echo(line, err=True)
        if not problems and not silent:
            typer.echo(f"{file}: {len(instruments)} instruments, no mistakes")
    if problems or silent:
        raise typer.Exit(1 if problems else CryptopipError.exit_code)


@app.command()
def load(
    file: UniverseFile,
    kind: Annotated[Kind, typer.Option(help="An ingestor's database, or the datalake.")],
    dsn: Annotated[str, typer.Option(help="Conninfo of the database; the password comes from a passfile.")],
    check: Annotated[bool, typer.Option("--check", help="Only say what would change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Carry the universe into a database, in one transaction; a second run changes nothing.

    An id that would come to name another instrument is refused. In the datalake this also notes from when to when
    each channel was meant to be recorded.

    Example: cryptopip universe load files/universe.yml --kind ingestor --dsn "host=10.0.0.11 dbname=ingestor"
    """
    universe = load_universe(file)
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        changes = load_universe_into(connection, kind.value, universe, check=check)
    if as_json:
        typer.echo(json.dumps({"changed": bool(changes), "check": check, "changes": [_plain(c) for c in changes]}))
        return
    for change in changes:
        typer.echo(f"would {change}" if check else str(change))
    typer.echo(f"{len(changes)} changes, {len(universe.instruments)} instruments in the file")


def _endpoints(universe: Universe, config: Path | None, asked: list[str] | None) -> dict[str, Endpoint]:
    """Whom to ask and where: the universe's exchanges, or those named; addresses as configured, or as named."""
    known = load_config(config).exchanges if config else {}
    if not asked:
        return {name: known.get(name, Endpoint()) for name in {i.exchange for i in universe.instruments}}
    named = [text.partition("=") for text in asked]
    return {name: Endpoint(rest=url) if url else known.get(name, Endpoint()) for name, _, url in named}


def _ask_exchanges(universe: Universe, endpoints: dict[str, Endpoint]) -> tuple[list[str], list[str]]:
    # ccxt takes a second to import, which every other command would wait for.
    from collectors.universe_online import ask_exchanges  # noqa: PLC0415

    return asyncio.run(ask_exchanges(universe, endpoints))


def _plain(change: Change) -> dict[str, Any]:
    fields = {name: [_text(old), _text(new)] for name, (old, new) in change.fields.items()}
    return {
        "action": change.action,
        "id": change.id,
        "exchange": change.exchange,
        "symbol": change.symbol,
        **({"fields": fields} if fields else {}),
        **({"channel": change.channel} if change.channel else {}),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
