"""``cryptopip load`` and ``cryptopip replay``."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import msgspec
import psycopg
import typer

from collectors.config import DEFAULT_CONFIG, load_config
from collectors.decode import decoder
from collectors.load.loader import Loader, Totals
from collectors.load.replay import Outcome
from collectors.load.replay import replay as replay_files
from collectors.load.supersede import Outcome as ReloadOutcome
from collectors.load.supersede import reload as reload_journal
from collectors.notify import Notifier
from collectors.universe import load_universe
from collectors.universe_load import load_universe_into


def load(
    exchange: Annotated[str, typer.Argument(help="The exchange whose journal to load: ccxt's id.")],
    config: Annotated[Path, typer.Option(help="This host's configuration.")] = DEFAULT_CONFIG,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End once nothing is left to load.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON at the end.")] = False,
) -> None:
    """Load an exchange's journal into this ingestor's database, and follow it as it grows.

    Example: cryptopip load binance --until-idle
    """
    one = decoder(exchange)
    settings = load_config(config)
    settings.endpoint(exchange)
    loader = Loader(
        settings.journal / exchange,
        settings.require_database(),
        settings.require_ingestor(),
        one,
        notifier=Notifier(),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loader.stop())
    totals = loader.run(until_idle=until_idle)
    typer.echo(json.dumps(msgspec.to_builtins(totals)) if as_json else _sentence(totals))


def reload(
    exchange: Annotated[str, typer.Argument(help="The exchange whose journal to load again: ccxt's id.")],
    segments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of segments: each connection (epoch) that has one of them is loaded again as a whole."
            " By default every connection whose journal is here and that another version of the decoder has loaded."
        ),
    ] = None,
    config: Annotated[Path, typer.Option(help="This host's configuration.")] = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Load journals again with the decoder of now: new batches supersede those of older decoders.

    Each connection in one transaction, with rows, parked frames, rejected events and coverage; the next sync replaces
    in the datalake what the old batches alone had contributed. The exchange's loader must be stopped meanwhile; the
    journal keeps what comes. A second run finds nothing to do.

    Examples:

    cryptopip reload binance

    cryptopip reload binance 1700000000000000000-000000.journal.zst
    """
    one = decoder(exchange)
    settings = load_config(config)
    settings.endpoint(exchange)
    outcomes = reload_journal(
        settings.journal / exchange,
        settings.require_database(),
        settings.require_ingestor(),
        one,
        segments or (),
        on_outcome=lambda outcome: typer.echo(_describe_reload(outcome), err=as_json),
    )
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(outcomes)))
    elif not outcomes:
        typer.echo("Nothing to load again: no connection that was loaded has its journal here.")


def _describe_reload(outcome: ReloadOutcome) -> str:
    if outcome.totals is None:
        return f"epoch {outcome.epoch}: left as it is: {outcome.said}"
    return (
        f"epoch {outcome.epoch}: {_sentence(outcome.totals)}, in place of {outcome.superseded_rows:,} rows in"
        f" {outcome.superseded_batches:,} batches"
    )


def replay(  # noqa: PLR0917 - typer reads the command line from them
    files: Annotated[
        list[Path], typer.Argument(help="Captures (gzip, '<recv_ns> <frame>' lines) or journal segments.", exists=True)
    ],
    exchange: Annotated[str, typer.Option(help="Whose frames these are: ccxt's id.")],
    dsn: Annotated[str, typer.Option(help="Conninfo of the ingestor database.")],
    universe: Annotated[Path | None, typer.Option(help="Load these instruments first.", exists=True)] = None,
    ingestor: Annotated[str, typer.Option(help="The ingestor to load them as.")] = "replay",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Load recorded files into an ingestor database; a file loaded before changes nothing.

    Example: cryptopip replay btcusdt_20240809.gz --exchange binance --universe universe.yml --dsn "dbname=ingestor"

    Exit codes: 0 everything is among the rows, 1 something was parked, rejected or damaged (it is counted, and kept by
    its place in the file), 2 wrong usage, 3 failure.
    """
    one = decoder(exchange)
    if universe is not None:
        instruments = load_universe(universe)
        with psycopg.connect(dsn, client_encoding="UTF8") as connection:
            load_universe_into(connection, "ingestor", instruments)
    outcomes = replay_files(files, dsn, ingestor, one, progress=_show_progress)
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(outcomes)))
    else:
        for outcome in outcomes:
            typer.echo(_describe(outcome))
    if any(each.totals.parked or each.totals.rejected or each.totals.damages for each in outcomes):
        raise typer.Exit(1)


def _show_progress(path: Path, totals: Totals, share: float) -> None:
    typer.echo(f"{path.name}: {share:.0%} read, {totals.rows:,} rows committed", err=True)


def _describe(outcome: Outcome) -> str:
    if outcome.was_loaded_before and not outcome.totals.rows:
        return f"{outcome.file}: was loaded before (as {outcome.segment}); nothing changed"
    return f"{outcome.file}: {_sentence(outcome.totals)}"


def _sentence(totals: Totals) -> str:
    text = f"{totals.rows:,} rows of {totals.frames:,} frames in {totals.batches:,} batches"
    counts = (
        (totals.parked, "parked"),
        (totals.rejected, "rejected"),
        (totals.damages, "damaged stretches that cannot be read"),
    )
    kept = [f"{count:,} {word}" for count, word in counts if count]
    return ", ".join([text, *kept])
