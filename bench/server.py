"""An exchange that sends as fast as it is read: ready-made WebSocket frames, written in large pieces.

``python -m bench.server FRAMES PIECE``; prints its port. PIECE: bytes of one write, 0 for each frame by itself, paced
so that a reader finds one at a time: else a slow reader finds several, which is cheaper for it. Answers Binance's
market list and depth, acknowledges SUBSCRIBE, and a second after all three streams are subscribed sends every frame of
each once.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from pathlib import Path

from aiohttp import WSMsgType, web

from bench.frames import SUFFIX, channel_of
from collectors.events import Channel
from collectors.simulator.market import MARKETS
from collectors.simulator.wire.binance import exchange_info

_AHEAD = 256 * 1024
_PACE_S = 50e-6


class Server:
    """State of one run: what to send, and who has subscribed."""

    def __init__(self, path: Path, piece: int) -> None:
        self.is_paced = piece == 0
        self.due = 0.0
        self.pieces: dict[Channel, list[bytes]] = {channel: [] for channel in SUFFIX}
        self.ready = asyncio.Event()
        self.subscribed: set[Channel] = set()
        self.first_id = 0
        self.levels: dict[str, list[list[str]]] = {}
        current: dict[Channel, bytearray] = {channel: bytearray() for channel in SUFFIX}
        with path.open("rb") as file:
            for line in file:
                payload = line.rstrip(b"\n").split(b" ", 1)[1]
                channel = channel_of(payload)
                if channel == "book_events" and not self.first_id:
                    data = json.loads(payload)["data"]
                    self.first_id, self.levels = data["U"], {"bids": data["b"], "asks": data["a"]}
                current[channel] += _framed(payload)
                if len(current[channel]) >= piece:
                    self.pieces[channel].append(bytes(current[channel]))
                    current[channel].clear()
        for channel, rest in current.items():
            self.pieces[channel].append(bytes(rest))

    async def market_list(self, _: web.Request) -> web.Response:
        return web.Response(body=exchange_info([MARKETS["BTCUSDT"]], 0), content_type="application/json")

    async def depth(self, _: web.Request) -> web.Response:
        return web.json_response({"lastUpdateId": self.first_id - 1, **self.levels})

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, heartbeat=None)
        await socket.prepare(request)
        sender: asyncio.Task[None] | None = None
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            asked = json.loads(message.data)
            await socket.send_json({"result": None, "id": asked["id"]})
            channels = [c for c, suffix in SUFFIX.items() if asked["params"][0].encode().endswith(suffix)]
            self.subscribed.update(channels)
            if self.subscribed == SUFFIX.keys():
                asyncio.get_running_loop().call_later(1, self.ready.set)
            sender = asyncio.create_task(self._send(request, channels[0]))
        if sender is not None:
            sender.cancel()
        return socket

    async def _send(self, request: web.Request, channel: Channel) -> None:
        await self.ready.wait()
        for piece in self.pieces[channel]:
            transport = request.transport
            while transport is not None and transport.get_write_buffer_size() > _AHEAD:  # noqa: ASYNC110  no event
                await asyncio.sleep(0.0005)
            if transport is None or transport.is_closing():
                return
            if self.is_paced:
                while time.perf_counter() < self.due:  # the event loop's timers are a hundred times coarser
                    pass
                self.due = time.perf_counter() + _PACE_S
            transport.write(piece)
            await asyncio.sleep(0)  # the other streams


def _framed(payload: bytes) -> bytes:
    """RFC 6455, 5.2: one unmasked text frame."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", 0x81, size) + payload
    if size < 65536:
        return struct.pack(">BBH", 0x81, 126, size) + payload
    return struct.pack(">BBQ", 0x81, 127, size) + payload


async def main() -> None:
    server = Server(Path(sys.argv[1]), int(sys.argv[2]))
    app = web.Application()
    app.router.add_get("/api/v3/exchangeInfo", server.market_list)
    app.router.add_get("/api/v3/depth", server.depth)
    app.router.add_get("/{path:.*}", server.stream)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
