"""``cryptopip simulate``: a simulated exchange on this machine."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from collectors.simulator.faults import parse_fault
from collectors.simulator.market import MARKETS
from collectors.simulator.replay import ReplayConfig
from collectors.simulator.simulator import Address, Config, Simulator
from collectors.simulator.wire import SIMULATED


def parse_address(text: str, name: str) -> Address:
    """``host:port`` or ``name=host:port``; raises ValueError for anything else."""
    given, equals, rest = text.rpartition("=")
    host, colon, port = rest.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"address {text!r}: expected host:port or name=host:port, as in a=127.0.0.1:9400")
    return Address(given if equals else name, host, int(port))


def simulate(  # noqa: PLR0917 - typer's way: each parameter is an option
    exchange: Annotated[str, typer.Option(help=f"Whose wire format: {', '.join(SIMULATED)}.")] = "binance",
    listen: Annotated[
        list[str] | None,
        typer.Option(
            help="[name=]host:port to serve on; several, so that faults can hit one client alone. Port 0: free."
        ),
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help=f"Symbol to trade, several allowed: {', '.join(MARKETS)}.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="Orders per second and symbol.")] = 200.0,
    levels: Annotated[int, typer.Option(min=10, help="Levels a side that each book keeps at least.")] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of the order flow.")] = 1,
    history: Annotated[int, typer.Option(min=0, help="Trades of a symbol that REST still tells.")] = 100_000,
    control: Annotated[str | None, typer.Option(help="host:port of the HTTP control API; none without.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Folder to write the ground truth to; grows without bound.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="KIND:key=value,... e.g. drop:listener=a,stream=depth,probability=0.01,after=10,seconds=5"),
    ] = None,
    replay: Annotated[
        list[Path] | None,
        typer.Option(help="Recorded frames to replay instead of trading (<ns> <json>, .gz or plain)."),
    ] = None,
    speed: Annotated[float, typer.Option(min=0, help="Pace of the replay; 0 as fast as clients read.")] = 1.0,
) -> None:
    """Run a simulated exchange until SIGTERM or Ctrl-C.

    Trades a true matching book per symbol with seeded random orders, serves REST and WebSocket in the
    exchange's wire format, and injects faults. Prints one line of JSON with its addresses when ready.

    Faults: drop duplicate reorder delay malformed stall disconnect refuse lifetime status skew; keys: listener, stream
    (trade, bookTicker, depth), symbol, path, probability, count, after, seconds, delay_ms, status, skew_ms.

    Control API: GET /status, GET /faults (applied), POST /faults (inject, JSON), DELETE /faults, POST /pause, /resume.

    Example: cryptopip simulate --listen a=127.0.0.1:9400 --listen b=127.0.0.1:9401 --symbol BTCUSDT --symbol ETHUSDT
    --rate 500 --control 127.0.0.1:9409 --fault refuse:listener=b,after=30,seconds=60
    """
    try:
        addresses = [parse_address(text, chr(ord("a") + i)) for i, text in enumerate(listen or ["127.0.0.1:9400"])]
        config = Config(
            exchange=exchange,
            symbols=symbol or ["BTCUSDT", "ETHUSDT"],
            listeners=addresses,
            rate=rate,
            levels=levels,
            seed=seed,
            history=history,
            control=parse_address(control, "control") if control else None,
            truth_folder=truth,
            keep_truth=False,
            replay=ReplayConfig(replay, speed) if replay else None,
        )
        faults = [parse_fault(text) for text in fault or []]
        simulator = Simulator(config)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from error

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with simulator:
            for one in faults:
                simulator.fault(one)
            ready = {name: simulator.rest_url(name) for name in simulator.listeners}
            if simulator.control_port:
                ready["control"] = f"http://{config.control.host if config.control else ''}:{simulator.control_port}"
            print(msgspec.json.encode(ready).decode(), flush=True)  # noqa: T201
            await stop.wait()

    try:
        asyncio.run(run())
    except (ValueError, OSError) as error:
        print(f"{error}; a port in use? Choose another with --listen or --control", file=sys.stderr)  # noqa: T201
        raise typer.Exit(3) from error
