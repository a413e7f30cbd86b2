"""What ccxt really sends to each exchange for each channel, and that it reaches the address it was sent to."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from collectors.config import Endpoint
from collectors.decode import EXCHANGES, decoder
from collectors.record.dial import dialler, redirected
from collectors.record.subscribe import subscribe
from collectors.record.venues import native_id, venue

_WORD = re.compile(r"[a-z0-9]{3,}")


class Exchange:
    """A server for any exchange: it keeps what it is sent, and answers nothing but a request for a token."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.paths: list[str] = []
        self.sockets = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            server = {
                "endpoint": f"ws{self.url.removeprefix('http')}/token",
                "pingInterval": 18000,
                "pingTimeout": 9000,
            }
            return web.json_response({"code": "200000", "data": {"token": "t", "instanceServers": [server]}})
        self.sockets += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.sent.append(message.data)
            elif message.type is WSMsgType.BINARY:
                self.sent.append(message.data.decode(errors="replace"))
        return socket


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Exchange]:
    exchange = Exchange()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", exchange.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    exchange.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield exchange
    finally:
        await runner.cleanup()


class Dialled:
    """Keeps the addresses ccxt dials."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def adopt(self, client: Any) -> None:
        self.urls.append(client.url)

    def opened(self) -> None:
        pass


def market(base: str, kind: str) -> dict[str, Any]:
    """A minimal market of ccxt's, of a linear contract where it is no spot."""
    is_spot = kind == "spot"
    symbol = f"{base}/USDT" if is_spot else f"{base}/USDT:USDT"
    return {
        "id": f"{base}-USDT",
        "lowercaseId": f"{base.lower()}-usdt",
        "symbol": symbol,
        "base": base,
        "quote": "USDT",
        "settle": None if is_spot else "USDT",
        "baseId": base,
        "quoteId": "USDT",
        "settleId": None if is_spot else "USDT",
        "baseName": base,
        "type": kind,
        **{one: one == kind for one in ("spot", "swap", "future", "option")},
        "margin": False,
        "contract": not is_spot,
        "linear": None if is_spot else True,
        "inverse": None if is_spot else False,
        "contractSize": None if is_spot else 1.0,
        "active": True,
        "precision": {"price": 0.01, "amount": 0.01},
        "limits": {},
        "info": {"symbol": f"{base}-USDT", "wsname": f"{base}/USDT", "pair": f"{base}-USDT"},
    }


CASES = [(exchange, channel) for exchange in EXCHANGES for channel in decoder(exchange).streams]


@pytest.mark.parametrize(("name", "channel"), CASES)
async def test_ccxt_asks_for_the_stream_that_the_decoder_reads(name: str, channel: Any) -> None:
    wiring = venue(name)
    assert channel in wiring.watch, f"{name} decodes {channel}, and nothing subscribes to it"
    kind = next(one for one in ("spot", "swap", "future", "option") if one in wiring.kinds)
    if channel in ("derivatives", "liquidations") and "swap" in wiring.kinds:
        kind = "swap"
    tap = Dialled()
    async with serving() as server:
        ws = "ws" + server.url.removeprefix("http")
        exchange = dialler(wiring, Endpoint(rest=server.url, ws=ws), tap)
        exchange.set_markets([market("BTC", kind), market("ETH", kind)])
        instruments = {f"{base}-USDT": market(base, kind)["symbol"] for base in ("BTC", "ETH")}
        failures: list[str] = []
        task = asyncio.create_task(
            subscribe(
                exchange,
                wiring.watch[channel],
                instruments,
                interval=0.01,
                is_one_by_one=False,
                refused=lambda native_id, detail: failures.append(f"{native_id}: {detail}"),
                asked=lambda: None,
            )
        )
        words = set(_WORD.findall(re.sub(r"<[^>]*>", " ", decoder(name).streams[channel].name.lower())))

        def is_asked() -> bool:
            said = " ".join([*server.sent, *server.paths]).lower()
            return bool(words & set(_WORD.findall(said))) or not words

        try:
            async with asyncio.timeout(8):
                while not (server.sockets and is_asked()) and not task.done():  # noqa: ASYNC110  the server's doing
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(
                f"expected one of {sorted(words)}; sent {server.sent}, asked {server.paths}, dialled {tap.urls}"
            )
        finally:
            if task.done() and (error := task.exception()) is not None:
                failures.append(repr(error))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await exchange.close()
    assert failures == []
    assert len(tap.urls) == 1, "one channel, one socket"
    assert tap.urls[0].startswith(ws)


@pytest.mark.parametrize("name", EXCHANGES)
def test_every_address_of_an_exchange_is_redirected(name: str) -> None:
    urls = dialler(venue(name), Endpoint(rest="http://127.0.0.1:1", ws="ws://127.0.0.1:2")).urls
    reached = str({key: urls.get(key) for key in ("api", "test")})
    assert re.findall(r"(?:https|wss)://[^'\"]+", reached) == []


def test_paths_and_what_is_no_url_stay_as_they_are() -> None:
    urls = {"api": {"ws": "wss://x.{hostname}:9443/ws/v1?a=b", "rest": ["https://y", "none"]}, "hostname": None}
    assert redirected(urls, Endpoint(rest="http://h:1/", ws=None)) == {
        "api": {"ws": "wss://x.{hostname}:9443/ws/v1?a=b", "rest": ["http://h:1", "none"]},
        "hostname": None,
    }
    assert redirected(urls, Endpoint(rest=None, ws="ws://h:2"))["api"]["ws"] == "ws://h:2/ws/v1?a=b"


@pytest.mark.parametrize(
    ("exchange", "market", "expected"),
    [
        ("binance", {"type": "spot", "id": "BTCUSDT", "symbol": "BTC/USDT"}, "BTCUSDT"),
        ("kraken", {"type": "spot", "id": "XXBTZUSD", "symbol": "BTC/USD"}, "BTC/USD"),
        ("hyperliquid", {"type": "swap", "id": "0", "baseName": "BTC", "symbol": "BTC/USDC:USDC"}, "BTC"),
        ("hyperliquid", {"type": "spot", "id": "@107", "baseName": "HYPE", "symbol": "HYPE/USDC"}, "@107"),
    ],
)
def test_an_instrument_is_called_as_the_frames_call_it(exchange: str, market: dict[str, str], expected: str) -> None:
    assert native_id(venue(exchange), market) == expected
