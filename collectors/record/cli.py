"""``cryptopip record``: record one exchange until told to stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from collectors.config import DEFAULT_CONFIG, load_config
from collectors.universe import load_universe


def record(
    exchange: Annotated[str, typer.Argument(help="The exchange's id, e.g. binance.")],
    config: Annotated[Path, typer.Option("--config", help="This host's configuration.")] = DEFAULT_CONFIG,
) -> None:
    """Record an exchange's frames into the journal until SIGTERM or Ctrl-C.

    Records the instruments and channels of the universe file. At the end everything received is committed and the
    journal closed; a recorder that is killed loses at most one commit interval.

    Example: cryptopip record binance --config /etc/cryptopip/cryptopip.yml
    """
    from collectors.record.recorder import Recorder, Settings  # noqa: PLC0415  ccxt takes seconds to import

    loaded = load_config(config)
    endpoint = loaded.endpoint(exchange)
    settings = Settings(
        ingestor=loaded.require_ingestor(),
        journal=loaded.journal,
        exchange=exchange,
        endpoint=endpoint,
        instruments=load_universe(loaded.universe).instruments,
        commit_interval=loaded.commit_interval_ms / 1000,
        lifetime=None if endpoint.lifetime_hours is None else endpoint.lifetime_hours * 3600,
    )

    async def run() -> None:
        stop = asyncio.Event()
        for one in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(one, stop.set)
        await Recorder(settings).run(stop)

    asyncio.run(run())
