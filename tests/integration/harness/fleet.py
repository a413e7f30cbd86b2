"""A fleet on one machine: two ingestors with a database each, and a datalake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg

from collectors.decode import Identity, decoder
from collectors.events import Channel
from collectors.simulator import MARKETS
from collectors.simulator.wire import wire
from tests.integration.harness.process import Exchange, Process, until

COMMIT_INTERVAL_S = 0.15
CHANNELS: tuple[Channel, ...] = ("trades", "quotes", "book_events")


def query(dsn: str, text: str) -> list[tuple[Any, ...]]:
    """The rows of a query on a connection of its own."""
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        return connection.execute(text.encode()).fetchall()


class Ingestor:
    """One ingestor: its configuration, its journal, its database, its processes."""

    def __init__(
        self,
        name: str,
        folder: Path,
        dsn: str,
        universe: Path,
        exchange: Exchange,
        *,
        lifetime_hours: float | None,
    ) -> None:
        self.name = name
        self.venue = exchange.name
        self.folder = folder / name
        self.journal = self.folder / "journal"
        self.journal.mkdir(parents=True)
        self.dsn = dsn
        self.config = self.folder / "cryptopip.yml"
        self._exchange = exchange
        self._log = folder / f"{name}.log"
        self.recorder: Process | None = None
        endpoint = {"rest": exchange.rest(name), "ws": exchange.ws(name), "lifetime_hours": lifetime_hours}
        self.config.write_text(
            json.dumps(
                {
                    "ingestor": name,
                    "journal": str(self.journal),
                    "universe": str(universe),
                    "database": dsn,
                    "exchanges": {self.venue: endpoint},
                    "commit_interval_ms": int(COMMIT_INTERVAL_S * 1000),
                }
            )
        )

    def record(self) -> Process:
        """Start the recorder; it may not be subscribed yet."""
        assert self.recorder is None or not self.recorder.is_alive()
        self.recorder = Process(self._log, "record", self.venue, "--config", str(self.config))
        return self.recorder

    def load(self) -> Process:
        """Start a loader that ends when all journals are loaded."""
        return Process(self._log, "load", self.venue, "--config", str(self.config), "--until-idle")

    def load_on(self) -> Process:
        """Start a loader that goes on until it is told to stop."""
        return Process(self._log, "load", self.venue, "--config", str(self.config))

    def streams_of(self, symbols: list[str]) -> int:
        """How many streams that many symbols are."""
        made = wire(self.venue)
        return len(made.streams([made.market(MARKETS[symbol]) for symbol in symbols]))

    def endings(self) -> set[str]:
        """Why coverage on this ingestor ended."""
        return {str(one) for (one,) in query(self.dsn, "SELECT ended_by FROM coverage WHERE ended_by IS NOT NULL")}

    def wait_subscribed(self, symbols: list[str]) -> None:
        """Wait until every stream is subscribed to and every book has had its snapshot."""
        assert self.recorder is not None
        recorder, wanted = self.recorder, self.streams_of(symbols)

        def is_ready() -> bool:
            assert recorder.is_alive(), f"the recorder of {self.name} died: {recorder.tail()}"
            return len(self._exchange.streams(self.name)) == wanted

        until(is_ready, f"subscriptions of {self.name}")


class Fleet:
    """The chain from the exchange to the datalake. ``close`` ends every process."""

    def __init__(
        self,
        folder: Path,
        ingestor_dsns: list[str],
        datalake_dsn: str,
        *,
        symbols: list[str],
        rate: float = 150.0,
        levels: int = 3000,
        seed: int = 1,
        exchange: str = "binance",
        history: int = 100_000,
        lifetime_hours: float | None = None,
    ) -> None:
        self.wire = wire(exchange)
        self.decoder = decoder(exchange)
        self.channels = tuple(channel for channel in CHANNELS if channel in self.decoder.streams)
        names = [f"ing{number}" for number in range(1, len(ingestor_dsns) + 1)]
        self.folder = folder
        self.symbols = symbols
        self.levels = levels
        self.datalake_dsn = datalake_dsn
        self.instruments = {self.wire.native_id(MARKETS[symbol]): number for number, symbol in enumerate(symbols, 1)}
        """Ids by the exchange's own names, which the truth goes by."""
        self.shared_channels = tuple(
            channel for channel in self.channels if self.decoder.streams[channel].identity is not Identity.EPOCH
        )
        """Those whose events are the same whichever connection received them."""
        self.exchange = Exchange(
            folder,
            names,
            symbols=symbols,
            rate=rate,
            levels=levels,
            seed=seed,
            exchange=exchange,
            history=history,
        )
        universe = folder / "universe.yml"
        entries = json.dumps({"version": 1, "instruments": [self._instrument(symbol) for symbol in symbols]})
        universe.write_text(entries.replace('"2017-08-17T04:00:00Z"', "2017-08-17T04:00:00Z"))  # a time only unquoted
        self.ingestors = [
            Ingestor(name, folder, dsn, universe, self.exchange, lifetime_hours=lifetime_hours)
            for name, dsn in zip(names, ingestor_dsns, strict=True)
        ]
        self.config = folder / "datalake.yml"
        self.config.write_text(
            json.dumps(
                {
                    "universe": str(universe),
                    "exchanges": {exchange: {"rest": self.exchange.rest(names[0]), "ws": None}},
                    "sync": {
                        "datalake": datalake_dsn,
                        "sources": [{"ingestor": one.name, "database": one.dsn} for one in self.ingestors],
                    },
                }
            )
        )
        self._processes: list[Process] = [self.exchange.process]
        try:
            for kind, dsn in [("datalake", datalake_dsn), *(("ingestor", dsn) for dsn in ingestor_dsns)]:
                self.run("universe", "load", str(universe), "--kind", kind, "--dsn", dsn)
        except BaseException:
            self.close()
            raise

    def _instrument(self, symbol: str) -> dict[str, Any]:
        market = MARKETS[symbol]
        native_id = self.wire.native_id(market)
        settle = {"settle": market.quote, "contract_size": "1"} if self.wire.market_kind == "swap" else {}
        return {
            "id": self.instruments[native_id],
            "exchange": self.wire.exchange,
            "symbol": f"{market.base}/{market.quote}" + (f":{market.quote}" if settle else ""),
            "native_id": native_id,
            "kind": self.wire.market_kind,
            **settle,
            "base": market.base,
            "quote": market.quote,
            "price_tick": market.price_tick,
            "amount_step": market.amount_step,
            "listed_at": "2017-08-17T04:00:00Z",
            "channels": list(self.channels),
        }

    def keep(self, process: Process) -> Process:
        """Remember a process so that ``close`` ends it."""
        self._processes.append(process)
        return process

    def run(self, *arguments: str) -> None:
        """Run a command to its end, which must be without an error."""
        self.keep(Process(self.folder / "commands.log", *arguments)).finish()

    def sync(self) -> Process:
        """Start one pull of all ingestors."""
        return self.keep(Process(self.folder / "sync.log", "sync", "--config", str(self.config), "--wait"))

    def sync_on(self) -> Process:
        """Start a sync that goes on until it is told to stop."""
        return Process(self.folder / "sync.log", "sync", "--config", str(self.config), "--every", "50ms")

    def record(self) -> None:
        """Start every recorder and wait until all are subscribed."""
        for ingestor in self.ingestors:
            self.keep(ingestor.record())
        for ingestor in self.ingestors:
            ingestor.wait_subscribed(self.symbols)

    def finish_recording(self) -> None:
        """End the trading, then the recorders in an orderly way: what they received is committed."""
        self.exchange.pause()
        for ingestor in self.ingestors:
            if ingestor.recorder is not None and ingestor.recorder.is_alive():
                ingestor.recorder.stop()

    def load_and_sync(self) -> None:
        """Load every journal to its end and merge it: one undisturbed life of each."""
        for loader in [self.keep(ingestor.load()) for ingestor in self.ingestors]:
            loader.finish()
        self.sync().finish()

    def count(self, dsn: str, table: str) -> int:
        """Rows of a table."""
        with psycopg.connect(dsn, client_encoding="UTF8") as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            assert row is not None
            return int(row[0])

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            process.destroy()
