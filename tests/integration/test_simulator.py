"""The simulated exchange over real sockets: its protocol, its ids across REST and streams, its faults."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.pro
import pytest

from collectors.simulator import Address, Config, Fault, ReplayConfig, Simulator, Truth

ALL = ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]
Frame = dict[str, Any]


class Client:
    """A WebSocket client that keeps what it received."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.texts: list[str] = []
        self.closed = asyncio.Event()
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.socket:
                self.texts.append(message.data)
        except aiohttp.ClientError:
            pass  # dropped without a goodbye, which is what some tests do
        finally:
            self.closed.set()

    @property
    def frames(self) -> list[Frame]:
        return [json.loads(text) for text in self.texts]

    def of(self, stream: str) -> list[Frame]:
        return [frame["data"] for frame in self.frames if frame.get("stream") == stream]

    async def ask(self, method: str, params: list[str] | None = None) -> Frame:
        number = len(self.texts) + 1000
        await self.socket.send_json({"method": method, "params": params or [], "id": number})
        replies: list[Frame] = await self.until(lambda: [f for f in self.frames if f.get("id") == number])
        return replies[0]

    async def until(self, state: Callable[[], Any], seconds: float = 20) -> Any:
        return await until(state, seconds)


async def until(state: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for something true; fails where it does not come."""
    deadline = time.monotonic() + seconds
    while not (value := state()):
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.02)
    return value


@asynccontextmanager
async def client(simulator: Simulator, path: str = "/stream", listener: str = "a") -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session, session.ws_connect(simulator.ws_url(listener) + path) as socket:
        one = Client(socket)
        yield one
        one.reader.cancel()


async def rest(simulator: Simulator, path: str, listener: str = "a") -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(simulator.rest_url(listener) + path) as reply:
        return reply.status, json.loads(await reply.text())


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    config = Config(symbols=["BTCUSDT", "ETHUSDT"], listeners=[Address("a"), Address("b")], rate=400, levels=3000)
    async with Simulator(config) as running:
        yield running


def ids(frames: Iterable[Frame]) -> list[int]:
    return [frame["t"] for frame in frames]


async def test_every_subscriber_receives_every_event_of_the_truth_once_and_in_order(simulator: Simulator) -> None:
    async with client(simulator) as one, client(simulator, f"/stream?streams={'/'.join(ALL)}", "b") as other:
        await one.ask("SUBSCRIBE", ALL)
        first = simulator.truth.symbols["BTCUSDT"]
        await one.until(lambda: len(one.of("btcusdt@depth@100ms")) > 10 and len(one.of("btcusdt@trade")) > 50)
        simulator.pause()
        await one.until(lambda: one.of("btcusdt@trade")[-1]["t"] == first.trades[-1].event.trade_id)
        await other.until(lambda: other.texts[-1] == one.texts[-1])
        start = one.of("btcusdt@trade")[0]["t"]
        true_ids = [true.event.trade_id for true in first.trades if true.event.trade_id >= start]
        assert ids(one.of("btcusdt@trade")) == true_ids
        for stream in ALL:
            assert other.of(stream)[-len(one.of(stream)) :] == one.of(stream), "two connections, one exchange"
        for frame, true in zip(reversed(one.of("btcusdt@bookTicker")), reversed(first.quotes), strict=False):
            assert (frame["u"], frame["b"], frame["A"]) == (
                true.event.update_id,
                true.event.bid_price,
                true.event.ask_amount,
            )
        assert not [frame for frame in one.frames if "ethusdt" in frame.get("stream", "")]


async def test_a_snapshot_and_the_updates_after_it_give_the_exchanges_book(simulator: Simulator) -> None:
    async with client(simulator, "/ws/btcusdt@depth@100ms") as one:
        await one.until(lambda: len(one.texts) > 2)
        status, snapshot = await rest(simulator, "/api/v3/depth?symbol=BTCUSDT&limit=5000")
        assert status == 200
        await one.until(lambda: one.frames[-1]["u"] > snapshot["lastUpdateId"] and len(one.texts) > 8)
        bids, asks = dict(snapshot["bids"]), dict(snapshot["asks"])
        assert len(bids) >= 3000
        assert len(asks) >= 3000
        updates = [frame for frame in one.frames if frame["u"] > snapshot["lastUpdateId"]]
        assert updates[0]["U"] <= snapshot["lastUpdateId"] + 1 <= updates[0]["u"]
        last = updates[0]["U"] - 1
        for update in updates:
            assert update["U"] == last + 1
            last = update["u"]
            for side, levels in ((bids, update["b"]), (asks, update["a"])):
                for price, amount in levels:
                    side[price] = amount
        book = simulator.truth.book_at("BTCUSDT", last)
        assert {price: amount for price, amount in bids.items() if amount != "0.00000000"} == book.bids
        assert {price: amount for price, amount in asks.items() if amount != "0.00000000"} == book.asks


async def test_requests_are_acknowledged_and_mistakes_are_told(simulator: Simulator) -> None:
    async with client(simulator, "/stream/ws/0") as one:
        assert (await one.ask("SUBSCRIBE", ALL))["result"] is None
        assert (await one.ask("LIST_SUBSCRIPTIONS"))["result"] == sorted(ALL)
        assert (await one.ask("UNSUBSCRIBE", ALL[1:]))["result"] is None
        assert (await one.ask("LIST_SUBSCRIPTIONS"))["result"] == ALL[:1]
        assert "btcusdt@kline" in (await one.ask("SUBSCRIBE", ["btcusdt@kline_1m"]))["error"]["msg"]
        assert "nopeusdt" in (await one.ask("SUBSCRIBE", ["nopeusdt@trade"]))["error"]["msg"]
        assert "DANCE" in (await one.ask("DANCE"))["error"]["msg"]
        await one.socket.send_str("{")
        await one.until(lambda: any("Invalid JSON" in text for text in one.texts))
        bare = await one.until(lambda: [frame for frame in one.frames if frame.get("e") == "trade"])
        assert bare[0]["s"] == "BTCUSDT", "under /ws events come without a wrapper"
    for path, code in (
        ("/api/v3/depth?symbol=NOPE", -1121),
        ("/api/v3/depth", -1121),
        ("/api/v3/depth?symbol=BTCUSDT&limit=x", -1100),
    ):
        status, body = await rest(simulator, path)
        assert (status, body["code"]) == (400, code)
    assert (await rest(simulator, "/api/v3/ping")) == (200, {})
    assert abs((await rest(simulator, "/api/v3/time"))[1]["serverTime"] / 1000 - time.time()) < 60


async def test_the_server_pings(unused_tcp_port: int) -> None:
    config = Config(rate=0, levels=20, ping_interval=0.1, listeners=[Address("a", port=unused_tcp_port)])
    async with (
        Simulator(config) as simulator,
        aiohttp.ClientSession() as session,
        session.ws_connect(simulator.ws_url() + "/ws", autoping=False) as socket,
    ):
        assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.PING
        # Never answered: the server gives up on us.
        kinds = [message.type async for message in socket]
        assert set(kinds) <= {aiohttp.WSMsgType.PING}
        assert socket.closed


# Faults: each is seen by the listener it is meant for, and by no other.


async def run_with(simulator: Simulator, fault: Fault, enough: int = 60) -> tuple[Client, Client]:
    async with client(simulator) as hit, client(simulator, listener="b") as spared:
        for one in (hit, spared):
            await one.ask("SUBSCRIBE", ALL)
        simulator.fault(fault)
        await hit.until(lambda: len(spared.of("btcusdt@trade")) > enough and simulator.log.count(fault.kind) > 2)
        simulator.pause()
        last = simulator.truth.symbols["BTCUSDT"].book_events[-1].event.last_id
        await hit.until(lambda: spared.of("btcusdt@depth@100ms")[-1]["u"] == last)
        await asyncio.sleep(1)  # frames held back by delay or reorder
        return hit, spared


async def test_dropped_frames_are_missing_on_their_listener_and_listed(simulator: Simulator) -> None:
    hit, spared = await run_with(simulator, Fault("drop", listener="a", stream="trade", probability=0.2))
    dropped = {applied.ids[0] for applied in simulator.log.applied if applied.ids}
    whole = ids(spared.of("btcusdt@trade"))
    assert whole == list(range(whole[0], whole[-1] + 1))
    got = set(ids(hit.of("btcusdt@trade")))
    # Dropping began when both clients were listening, but one had begun earlier than the other.
    assert {number for number in whole if number > min(got)} - got == {n for n in dropped if min(got) < n <= whole[-1]}
    assert dropped & set(whole)
    assert simulator.log.count("drop", "b") == 0


async def test_duplicated_frames_come_twice(simulator: Simulator) -> None:
    hit, spared = await run_with(simulator, Fault("duplicate", listener="a", stream="trade", count=5))
    assert simulator.log.count("duplicate", "a") == 5
    got = ids(hit.of("btcusdt@trade"))
    assert len(got) - len(set(got)) == 5
    assert len(ids(spared.of("btcusdt@trade"))) == len(set(ids(spared.of("btcusdt@trade"))))


async def test_reordered_frames_are_all_there_in_another_order(simulator: Simulator) -> None:
    hit, _ = await run_with(simulator, Fault("reorder", listener="a", stream="depth", count=3), enough=200)
    got = [frame["u"] for frame in hit.of("btcusdt@depth@100ms")]
    assert got != sorted(got)
    chain = sorted((frame["U"], frame["u"]) for frame in hit.of("btcusdt@depth@100ms"))
    assert all(after[0] == before[1] + 1 for before, after in pairwise(chain)), "none lost"


async def test_delayed_frames_come_late(simulator: Simulator) -> None:
    hit, spared = await run_with(simulator, Fault("delay", listener="a", stream="trade", count=5, delay_ms=300))
    assert sorted(ids(hit.of("btcusdt@trade")))[-50:] == ids(spared.of("btcusdt@trade"))[-50:]
    assert ids(hit.of("btcusdt@trade")) != sorted(ids(hit.of("btcusdt@trade")))


async def test_malformed_frames_do_not_parse(simulator: Simulator) -> None:
    async with client(simulator) as one:
        await one.ask("SUBSCRIBE", ALL)
        simulator.fault(Fault("malformed", listener="a", count=2))
        await until(lambda: simulator.log.count("malformed") == 2 and len(one.texts) > 20)
        bad = []
        for text in one.texts:
            try:
                json.loads(text)
            except json.JSONDecodeError:
                bad.append(text)
        assert len(bad) == 2


async def test_event_times_are_skewed_and_nothing_else(simulator: Simulator) -> None:
    hit, spared = await run_with(simulator, Fault("skew", listener="a", stream="trade", skew_ms=86_400_000))
    true = {frame["t"]: frame for frame in spared.of("btcusdt@trade")}
    moved = [frame for frame in hit.of("btcusdt@trade") if frame["t"] in true and frame != true[frame["t"]]]
    assert len(moved) > 10
    for frame in moved:
        assert frame["T"] == true[frame["t"]]["T"] + 86_400_000
        assert frame | {"T": 0, "E": 0} == true[frame["t"]] | {"T": 0, "E": 0}


async def test_a_stalled_listener_sends_nothing_not_even_pongs_and_then_goes_on(simulator: Simulator) -> None:
    async with client(simulator) as one:
        await one.ask("SUBSCRIBE", ALL)
        await one.until(lambda: len(one.of("btcusdt@trade")) > 5)
        simulator.fault(Fault("stall", listener="a", seconds=2))
        await until(lambda: simulator.log.count("stall", "a") > 5)
        before = len(one.texts)
        pong = await one.socket.ping()  # type: ignore[func-returns-value]
        assert pong is None
        await until(lambda: simulator.log.count("stall", "a") > 100)
        assert len(one.texts) == before
        assert not one.closed.is_set()
        await one.until(lambda: len(one.texts) > before)


async def test_a_disconnect_drops_every_socket_of_its_listener_only(simulator: Simulator) -> None:
    async with client(simulator) as hit, client(simulator, listener="b") as spared:
        await hit.ask("LIST_SUBSCRIPTIONS")
        await spared.ask("LIST_SUBSCRIPTIONS")
        simulator.fault(Fault("disconnect", listener="a"))
        await asyncio.wait_for(hit.closed.wait(), 20)
        assert not spared.closed.is_set()
        assert simulator.log.count("disconnect", "a") == 1
    async with client(simulator) as again:
        assert (await again.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_a_refusing_listener_is_gone_for_its_time(simulator: Simulator) -> None:
    async with client(simulator) as one:
        await one.ask("LIST_SUBSCRIPTIONS")
        simulator.fault(Fault("refuse", listener="a", seconds=1))
        await asyncio.wait_for(one.closed.wait(), 20)
    with pytest.raises(aiohttp.ClientConnectorError):
        await rest(simulator, "/api/v3/ping")
    assert (await rest(simulator, "/api/v3/ping", "b"))[0] == 200
    deadline = time.monotonic() + 20
    while True:
        try:
            assert (await rest(simulator, "/api/v3/ping"))[0] == 200
            break
        except aiohttp.ClientConnectorError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_the_24_hour_limit_closes_connections_of_that_age(simulator: Simulator) -> None:
    simulator.fault(Fault("lifetime", listener="a", seconds=0.5))
    async with client(simulator) as one:
        await asyncio.wait_for(one.closed.wait(), 20)
        assert one.socket.close_code == 1001
        assert simulator.log.count("lifetime", "a") == 1


async def test_rest_answers_with_the_asked_error_until_the_count_is_used_up(simulator: Simulator) -> None:
    simulator.fault(Fault("status", listener="a", status=429, path="depth", count=2))
    await asyncio.sleep(0)
    codes = [(await rest(simulator, "/api/v3/depth?symbol=BTCUSDT&limit=5"))[0] for _ in range(3)]
    assert codes == [429, 429, 200]
    assert simulator.log.count("status") == 2


# Around it


async def test_ccxt_itself_loads_markets_and_follows_books_and_trades(simulator: Simulator) -> None:
    exchange = ccxt.pro.binance({"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}})
    exchange.urls["api"]["public"] = simulator.rest_url() + "/api/v3"
    exchange.urls["api"]["ws"]["spot"] = simulator.ws_url() + "/stream/ws"
    try:
        await exchange.load_markets()
        assert exchange.market("BTC/USDT")["precision"] == {
            "amount": 0.00001,
            "price": 0.01,
            "base": 1e-08,
            "quote": 1e-08,
        }
        assert sorted(exchange.symbols) == ["BTC/USDT", "ETH/USDT"]
        for _ in range(10):
            book = await asyncio.wait_for(exchange.watch_order_book("BTC/USDT", limit=5000), 20)
        trades = await asyncio.wait_for(exchange.watch_trades_for_symbols(["BTC/USDT", "ETH/USDT"]), 20)
        true = simulator.truth.book_at("BTCUSDT", book["nonce"])
        bids, asks = true.best(1000)
        assert [list(map(float, level)) for level in bids] == [list(level) for level in book["bids"][:1000]]
        assert [list(map(float, level)) for level in asks] == [list(level) for level in book["asks"][:1000]]
        assert trades
    finally:
        await exchange.close()


async def test_the_control_api_injects_lists_and_pauses_and_the_truth_is_on_disk(tmp_path: Path) -> None:
    config = Config(rate=300, levels=100, control=Address("control"), truth_folder=tmp_path / "truth")
    async with Simulator(config) as simulator, client(simulator) as one, aiohttp.ClientSession() as session:
        control = f"http://127.0.0.1:{simulator.control_port}"
        await one.ask("SUBSCRIBE", ALL)
        async with session.post(f"{control}/faults", json={"kind": "drop", "stream": "trade", "count": 1}) as reply:
            assert reply.status == 200
        async with session.post(f"{control}/faults", json={"kind": "drop", "listener": "z"}) as reply:
            assert reply.status == 400
            assert "listener 'z'" in await reply.text()
        await until(lambda: simulator.log.count("drop") == 1 and len(one.texts) > 50)
        async with session.get(f"{control}/faults") as reply:
            assert [fault["kind"] for fault in await reply.json()] == ["drop"]
        async with session.post(f"{control}/pause") as reply:
            paused = (await reply.json())["symbols"]["BTCUSDT"]
        truth = Truth.read(tmp_path / "truth")
        assert truth.symbols == simulator.truth.symbols
        assert truth.symbols["BTCUSDT"].book_events[-1].event.last_id == paused["update_id"]
        async with session.delete(f"{control}/faults") as reply:
            assert reply.status == 200
        async with session.post(f"{control}/resume") as reply:
            assert not (await reply.json())["paused"]
        await until(lambda: simulator.status()["symbols"]["BTCUSDT"]["update_id"] > paused["update_id"])  # type: ignore[index]


async def test_the_command_serves_until_told_to_stop_and_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    async def start(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "collectors", "simulate", *arguments),
            cwd=Path(__file__).parent.parent.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    command = await start("--listen", "a=127.0.0.1:0", "--truth", str(tmp_path), "--levels", "50")
    assert command.stdout is not None
    ready = json.loads(await asyncio.wait_for(command.stdout.readline(), 60))
    async with aiohttp.ClientSession() as session, session.get(ready["a"] + "/api/v3/exchangeInfo") as reply:
        assert {symbol["symbol"] for symbol in (await reply.json())["symbols"]} == {"BTCUSDT", "ETHUSDT"}
        seen: set[int] = set()
        while len(seen) < 2:  # until it has traded
            async with session.get(ready["a"] + "/api/v3/depth?symbol=BTCUSDT&limit=5") as depth:
                seen.add((await depth.json())["lastUpdateId"])
    command.terminate()
    assert await asyncio.wait_for(command.wait(), 60) == 0
    assert Truth.read(tmp_path).symbols["BTCUSDT"].changes

    for arguments, told in (
        (["--symbol", "NOPE"], "NOPE"),
        (["--listen", "nowhere"], "host:port"),
        (["--fault", "explode"], "explode"),
        (["--exchange", "mtgox"], "expected one of binance"),
    ):
        refused = await start(*arguments)
        _, errors = await asyncio.wait_for(refused.communicate(), 60)
        assert refused.returncode == 2, errors
        assert told in errors.decode()


async def test_a_port_in_use_is_an_error_that_names_it(simulator: Simulator) -> None:
    taken = simulator.listeners["a"].port
    with pytest.raises(OSError, match=str(taken)):
        async with Simulator(Config(listeners=[Address("a", port=taken)], levels=20)):
            pass


async def test_recorded_frames_are_replayed_whole(tmp_path: Path) -> None:
    lines = [
        b'%d {"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":%d,"p":"1.00000000"}}'
        % (n * 1000, n)
        for n in range(1, 500)
    ]
    depth = (
        b'600000 {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":5,"u":9,'
        b'"b":[["9.00000000","1.00000000"],["8.00000000","1.00000000"]],"a":[["10.00000000","2.00000000"]]}}'
    )
    path = tmp_path / "recorded.gz"
    path.write_bytes(gzip.compress(b"\n".join([*lines, depth]) + b"\n"))
    config = Config(replay=ReplayConfig([path], speed=0, lead_s=0.3))
    async with Simulator(config) as simulator, client(simulator) as one:
        assert (await rest(simulator, "/api/v3/depth?symbol=BTCUSDT"))[0] == 503
        await one.ask("SUBSCRIBE", ALL)
        await one.until(lambda: one.of("btcusdt@depth@100ms"))
        assert [text.encode() for text in one.texts if "stream" in text] == [
            line.partition(b" ")[2] for line in (*lines, depth)
        ]
        assert (await rest(simulator, "/api/v3/depth?symbol=BTCUSDT&limit=1"))[1] == {
            "lastUpdateId": 9,
            "bids": [["9.00000000", "1.00000000"]],
            "asks": [["10.00000000", "2.00000000"]],
        }
    path.write_bytes(gzip.compress(b"no number\n"))
    with pytest.raises(ValueError, match=r"recorded\.gz:1"):
        Simulator(config)


@pytest.mark.captures
async def test_a_capture_reaches_a_client_byte_for_byte(captures: Path) -> None:
    path = captures / "hftbacktest" / "spot_btcusdt_20240809.gz"
    with gzip.open(path, "rb") as file:
        raw = [line.strip().partition(b" ")[2] for line in file if line.strip()]
    config = Config(replay=ReplayConfig([path], speed=0, lead_s=0.3))
    async with Simulator(config) as simulator, client(simulator) as one:
        await one.ask("SUBSCRIBE", ALL)
        await one.until(lambda: simulator.replay is not None and simulator.replay.is_done, 120)
        await one.until(lambda: len(one.texts) > len(raw), 60)
        assert [text.encode() for text in one.texts[1:]] == raw
