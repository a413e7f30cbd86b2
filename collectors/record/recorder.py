"""The recorder of one exchange: a connection for each channel and part of its instruments, begun anew for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ccxt
import structlog
from msgspec import Struct

from collectors.config import Endpoint
from collectors.decode import decoder
from collectors.errors import CryptopipError, UsageError
from collectors.journal import JournalWriter, Limits, next_epoch, remove_leftovers
from collectors.notify import Notifier
from collectors.record.connection import Connection, Subscription, Timing
from collectors.record.dial import dialler
from collectors.record.keeper import Keeper, wait_for
from collectors.record.pace import Backoff, Budget
from collectors.record.snapshots import Snapshots
from collectors.record.venues import Venue, native_id, venue
from collectors.universe import Instrument

_log = structlog.get_logger(__name__)
_STATUS_S = 10.0
_BEAT_S = 2.0
_COMMITS_HUNG_S = 60.0


class Settings(Struct, frozen=True):
    """What a recorder needs: whose name it writes under, where to, which instruments, how."""

    ingestor: str
    journal: Path
    exchange: str
    endpoint: Endpoint
    instruments: list[Instrument]
    commit_interval: float = 0.15
    limits: Limits = Limits()
    timing: Timing = Timing()
    lifetime: float | None = None
    """Seconds after which the exchange is taken to disconnect; None: what is known of it."""


def software() -> dict[str, str]:
    """Versions for the header of a segment."""
    found = {}
    for name in ("cryptopip", "ccxt", "aiohttp"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def subscriptions(of: Venue, instruments: list[Instrument], markets: dict[str, Any]) -> Iterator[Subscription]:
    """What each connection records; ``markets`` maps the native ids the exchange knows to ccxt's markets.

    Kinds of markets and currencies of settlement stay apart: many exchanges have an address for each.
    """
    for channel in of.watch:
        groups: dict[tuple[str, str], dict[str, str]] = {}
        for one in instruments:
            if channel in one.channels and one.native_id in markets:
                market = markets[one.native_id]
                settled = "inverse" if market.get("inverse") else market.get("settle") or ""
                groups.setdefault((market["type"], settled), {})[one.native_id] = market["symbol"]
        for symbols in groups.values():
            wanted = list(symbols)
            for start in range(0, len(wanted), of.symbols_per_connection):
                part = wanted[start : start + of.symbols_per_connection]
                yield Subscription(channel, {native_id: symbols[native_id] for native_id in part})


class Recorder:
    """``run`` until ``stop`` is set. Raises UsageError where there is nothing to record."""

    def __init__(self, settings: Settings, notifier: Notifier | None = None) -> None:
        self.settings = settings
        self.venue = venue(settings.exchange)
        self.decoder = decoder(settings.exchange)
        self.notifier = notifier or Notifier()
        self.connections: set[Connection] = set()
        budget = Budget(
            burst=self.venue.snapshot_burst, per_minute=self.venue.snapshots_per_minute, now=time.monotonic()
        )
        self.snapshots = Snapshots(self.decoder, settings.endpoint.rest, budget)
        self._exchange: Any = None
        self._epoch = 0
        self._past = {"frames": 0, "bytes": 0}

    async def run(self, stop: asyncio.Event) -> None:
        """Record until ``stop`` is set and everything is committed and closed."""
        self._check_folder()
        self._exchange = dialler(self.venue, self.settings.endpoint)
        try:
            helpers = [
                asyncio.create_task(self._beat(), name="beat"),
                asyncio.create_task(self._status(), name="status"),
            ]
            self.notifier.ready()
            markets = await self._markets(stop)
            if markets is not None:
                helpers += [
                    asyncio.create_task(self.snapshots.run(), name="snapshots"),
                    asyncio.create_task(self.snapshots.routine(lambda: list(self.connections)), name="routine"),
                ]
                await self._record(list(subscriptions(self.venue, self._instruments(), markets)), helpers, stop)
            self.notifier.stopping()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        finally:
            await self._exchange.close()
        _log.info("stopped", **self._counts())

    async def _record(self, parts: list[Subscription], helpers: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
        """Keep every connection; a helper that fails ends the process, which systemd starts anew."""
        hours = self.venue.lifetime_hours
        lifetime = self.settings.lifetime or (None if hours is None else hours * 3600)
        keepers = [
            asyncio.create_task(
                Keeper(part, self._make, lifetime=lifetime, timing=self.settings.timing).run(stop),
                name=f"keep {part.channel}",
            )
            for part in parts
        ]
        _log.info("recording", connections=len(parts), instruments=len(self._instruments()))
        done, _ = await asyncio.wait([*keepers, *helpers], return_when=asyncio.FIRST_COMPLETED)
        was_asked = stop.is_set()
        stop.set()
        await asyncio.gather(*keepers, return_exceptions=True)
        for task in done:
            error = None if task.cancelled() else task.exception()
            if error is not None or not was_asked:
                detail = repr(error) if error is not None else "it ended without being asked to"
                raise RecorderError(f"{task.get_name()} failed: {detail}") from error

    def _make(self, part: Subscription, is_one_by_one: bool) -> Connection:
        """A new connection, which is among ``connections`` until its life is over."""
        connection = Connection(
            venue=self.venue,
            endpoint=self.settings.endpoint,
            markets_of=self._exchange,
            decoder=self.decoder,
            subscription=part,
            journal=self._journal(),
            want_snapshot=self.snapshots.want,
            timing=self.settings.timing,
            is_one_by_one=is_one_by_one,
            over=self._over,
        )
        self.connections.add(connection)
        return connection

    def _over(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._past["frames"] += connection.journal.frames
        self._past["bytes"] += connection.journal.bytes

    def _journal(self) -> JournalWriter:
        settings = self.settings
        self._epoch = max(next_epoch(settings.journal), self._epoch + 1)
        return JournalWriter(
            settings.journal / settings.exchange,
            stream=settings.exchange,
            exchange=settings.exchange,
            url=settings.endpoint.ws or "",  # until it is dialled
            ingestor=settings.ingestor,
            software=software(),
            epoch=self._epoch,
            commit_interval=settings.commit_interval,
            limits=settings.limits,
        )

    def _instruments(self) -> list[Instrument]:
        now = time.time()
        return [
            one
            for one in self.settings.instruments
            if one.exchange == self.settings.exchange and (one.delisted_at is None or one.delisted_at.timestamp() > now)
        ]

    async def _markets(self, stop: asyncio.Event) -> dict[str, Any] | None:
        """ccxt's markets of the universe's native ids; None where we are stopped before the exchange answers."""
        wanted = self._instruments()
        if not wanted:
            raise UsageError(
                f"the universe has no instrument of {self.settings.exchange}: add one, or disable this recorder"
            )
        lacking = sorted({channel for one in wanted for channel in one.channels} - self.venue.watch.keys())
        if lacking:
            _log.info("channels that the exchange does not offer, or that are derived later", channels=lacking)
        backoff = Backoff()
        while not stop.is_set():
            try:
                await self._exchange.load_markets(True)
                break
            except (ccxt.BaseError, OSError, TimeoutError) as error:
                delay = backoff.delay()
                _log.error("no list of markets", error=f"{type(error).__name__}: {error}"[:300], retry_in_seconds=delay)
                await wait_for(stop, delay)
        else:
            return None
        known: dict[str, list[Any]] = {}
        for market in self._exchange.markets.values():
            if market["type"] in self.venue.kinds:
                known.setdefault(native_id(self.venue, market), []).append(market)
        found = {}
        for instrument in wanted:
            fitting = known.get(instrument.native_id, [])
            named = [market for market in fitting if market["symbol"] == instrument.symbol]
            market = next(iter(named or fitting), None)
            if market is None:
                _log.error(
                    "unknown to the exchange, not recorded: correct native_id in the universe, or set delisted_at",
                    native_id=instrument.native_id,
                    symbol=instrument.symbol,
                    instrument_id=instrument.id,
                    exchange=instrument.exchange,
                )
            else:
                found[instrument.native_id] = market
        if not found:
            raise UsageError(
                f"{self.settings.exchange} knows none of the universe's {len(wanted)} instruments, "
                f"{wanted[0].native_id} for one: correct their native_id"
            )
        return found

    def _check_folder(self) -> None:
        folder = self.settings.journal / self.settings.exchange
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{time.time_ns()}"
            probe.touch()
            probe.unlink()
            for leftover in remove_leftovers(folder):
                _log.warning("removed what a crashed recorder was about to open", file=str(leftover))
        except OSError as error:
            raise RecorderError(
                f"cannot write the journal to {folder}: {error.strerror}; expected a folder of this user, with room"
            ) from error

    def _counts(self) -> dict[str, Any]:
        journals = [connection.journal for connection in self.connections]
        return {
            "frames": self._past["frames"] + sum(journal.frames for journal in journals),
            "bytes": self._past["bytes"] + sum(journal.bytes for journal in journals),
            "snapshots": self.snapshots.taken,
        }

    async def _status(self) -> None:
        """A line every so often, and the same for systemctl."""
        while True:
            await asyncio.sleep(_STATUS_S)
            journals = [connection.journal for connection in self.connections]
            subscribed = sum(connection.is_subscribed for connection in self.connections)
            commits = [journal.last_commit for journal in journals if journal.last_commit]
            age = (time.time_ns() - min(commits)) / 1e9 if commits else None
            counts = self._counts()
            _log.info(
                "status",
                **counts,
                buffer_fill=round(max((journal.fill for journal in journals), default=0.0), 3),
                connections=len(self.connections),
                subscribed=subscribed,
                last_commit_seconds_ago=None if age is None else round(age, 2),
            )
            self.notifier.status(f"{subscribed} of {len(self.connections)} connections, {counts['frames']} frames")

    async def _beat(self) -> None:
        """Feed systemd's watchdog while the commit loops go round: a hung disk is a hung recorder."""
        while True:
            now = time.monotonic()
            beats = [c.journal.beat for c in self.connections if not c.is_over and c.journal.beat is not None]
            if not beats or now - min(beats) < _COMMITS_HUNG_S:
                self.notifier.watchdog()
            await asyncio.sleep(_BEAT_S)


class RecorderError(CryptopipError):
    """The recorder cannot go on; the text says why and what to do."""
