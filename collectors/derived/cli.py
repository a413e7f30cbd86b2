"""``cryptopip derive``: bring what is computed from the history up to the history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import psycopg
import structlog
import typer

from collectors.config import DEFAULT_CONFIG, load_config
from collectors.derived.books import BooksReport, BooksRunningError, derive_books
from collectors.derived.ohlcv import DeriveReport, DeriveRunningError, derive
from collectors.errors import CryptopipError
from collectors.notify import Notifier


def derive_command(
    *,
    config: Annotated[Path, typer.Option(help="Configuration of this host, for its datalake.")] = DEFAULT_CONFIG,
    dsn: Annotated[str | None, typer.Option(help="Conninfo of the datalake, instead of the configured one.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try hours again that were refused, once their rows are complete again.")
    ] = False,
    book_seconds: Annotated[
        float, typer.Option(min=0, help="Begin no hour of books later than so many seconds after the first.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make bars (OHLCV of 1 s, 1 min, 1 h, 1 d) of the hours whose trades have changed since the last run; of hours
    whose book events have, once they are over for ten minutes, the book at their end and, where the exchange sends no
    best bid and ask, quotes.

    Run it after sync; it may be stopped at any moment.

    Example: cryptopip derive --config /etc/cryptopip/cryptopip.yml

    Exit codes: 0 every bar is that of its trades and every book that of its events, but for hours left to the next run
    (or another run is at work), 1 hours were refused since their rows are not those of their digest, 2 wrong usage,
    3 failure.
    """
    conninfo = dsn if dsn is not None else load_config(config).require_sync().datalake
    log = structlog.get_logger()
    notifier = Notifier()

    def on_progress(report: DeriveReport | BooksReport) -> None:
        notifier.moved_on()
        log.debug("derived", **msgspec.to_builtins(report))

    try:
        with psycopg.connect(
            conninfo, application_name="cryptopip derive", client_encoding="UTF8", autocommit=True
        ) as connection:
            connection.execute("SET client_connection_check_interval = '2s'; SET temp_buffers = '32MB'")
            bars = derive(connection, retry=retry, on_progress=on_progress)
            books = derive_books(connection, retry=retry, seconds=book_seconds, on_progress=on_progress)
    except (DeriveRunningError, BooksRunningError) as running:
        log.info(str(running))
        raise typer.Exit(running.exit_code) from running
    except psycopg.Error as error:
        raise CryptopipError(f"the datalake failed: {str(error).strip()}") from error
    report = {**msgspec.to_builtins(bars), "books": msgspec.to_builtins(books)}
    log.info("derive done", **report)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    if bars.refused:
        log.error(
            "the trades of some hours are not those of their digests, so their bars stay as they were;"
            " table ohlcv_hours names them: see `cryptopip digest compare`, mend the trades, then run"
            " `cryptopip derive --retry`",
            refused=bars.refused,
        )
    if books.refused:
        log.error(
            "some hours have another number of book events than their digests say, so their books stay as they were;"
            " table book_hours names them: see `cryptopip digest compare`, mend the rows, then run"
            " `cryptopip derive --retry`",
            refused=books.refused,
        )
    if bars.refused or books.refused:
        raise typer.Exit(1)
