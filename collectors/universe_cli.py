"""``cryptopip universe``: check the universe file, and carry it into a database."""

from __future__ import annotations

import asyncio
import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from collectors.config import Config, load_config
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
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Check a universe file and name all its mistakes.

    Exit code 0 where it is right, 1 where it has mistakes, 3 where an exchange could not be asked.

    Example: cryptopip universe validate files/universe.yml --online
    """
    instruments: list[Instrument] = []
    try:
        universe = load_universe(file)
        instruments = universe.instruments
        problems = _ask_exchanges(universe, load_config(config) if config else Config()) if online else []
    except UniverseError as error:
        problems = error.problems
    if as_json:
        typer.echo(json.dumps({"file": str(file), "instruments": len(instruments), "problems": problems}))
    else:
        for problem in problems:
            typer.echo(f"{file}: {problem}", err=True)
        if not problems:
            typer.echo(f"{file}: {len(instruments)} instruments, no mistakes")
    if problems:
        raise typer.Exit(1)


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


def _ask_exchanges(universe: Universe, config: Config) -> list[str]:
    # ccxt takes a second to import, which every other command would wait for.
    from collectors.universe_online import ask_exchanges  # noqa: PLC0415

    return asyncio.run(ask_exchanges(universe, config))


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
