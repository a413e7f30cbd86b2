"""Every channel of an exchange with derivatives, from frames to tables; lines that wait for some instruments."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from collectors.decode import decoder
from collectors.events import CHANNELS, Channel
from collectors.journal import JournalWriter, Subscribed
from collectors.load import Loader
from tests.integration.load_harness import ask
from tests.unit.decode.test_okx import FRAMES, NS

pytestmark = pytest.mark.database
NATIVE_IDS = ["BTC-USDT", "BTC-USDT-SWAP"]


def write(folder: Path, frames: list[bytes]) -> None:
    async def work() -> None:
        journal = JournalWriter(
            folder,
            stream="okx",
            exchange="okx",
            url="wss://exchange.invalid",
            ingestor="ing1",
            software={},
            epoch=NS,
            clock=lambda: NS,
        )
        await journal.open()
        for channel in CHANNELS:
            journal.mark(Subscribed(NS, channel, NATIVE_IDS))
        for number, payload in enumerate(frames):
            journal.append(NS + number, payload)
        await journal.close("shutdown")

    asyncio.run(work())


def add(dsn: str, number: int, native_id: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
            " VALUES (%s, 'okx', %s, %s, 'spot', 'X', 'USDT', '2019-01-01T00:00:00Z')",
            (number, native_id, native_id),
        )


def load(folder: Path, dsn: str) -> None:
    Loader(folder, dsn, "ing1", decoder("okx")).run(until_idle=True)


def test_every_channel_reaches_its_table(tmp_path: Path, ingestor_dsn: str) -> None:
    for number, native_id in enumerate(NATIVE_IDS, 1):
        add(ingestor_dsn, number, native_id)
    write(tmp_path / "okx", list(FRAMES.values()))
    load(tmp_path / "okx", ingestor_dsn)
    counts: dict[Channel, int] = {}
    for channel in CHANNELS:
        ((counts[channel],),) = ask(ingestor_dsn, f"SELECT count(*) FROM {channel}")
    assert counts == {"trades": 3, "quotes": 2, "book_events": 3, "derivatives": 4, "liquidations": 2}
    assert ask(ingestor_dsn, f"SELECT {', '.join(f'sum({c})::int' for c in CHANNELS)} FROM load_batches") == [
        tuple(counts.values())
    ]
    derivatives = ask(
        ingestor_dsn,
        "SELECT funding_rate, (extract(epoch FROM funding_time) * 1000)::bigint, open_interest, mark_price, index_price"
        " FROM derivatives ORDER BY received_at, funding_rate",
    )
    assert derivatives == [
        (Decimal("-0.0000123"), NS // 10**6 + 1, None, None, None),
        (None, None, Decimal(5000), None, None),
        (None, None, None, Decimal("61000.15"), None),
        (None, None, None, None, Decimal("61000.3")),
    ]
    assert ask(ingestor_dsn, "SELECT is_buy, liquidation_id, price, amount FROM liquidations ORDER BY amount") == [
        (False, None, Decimal(62000), Decimal(1)),
        (True, None, Decimal(62000), Decimal(13)),
    ]
    assert ask(ingestor_dsn, "SELECT bid_price, ask_price FROM quotes WHERE bid_price IS NULL") == [
        (None, Decimal("61000.2"))
    ]
    assert {channel for (channel,) in ask(ingestor_dsn, "SELECT DISTINCT channel FROM coverage")} >= {
        "derivatives",
        "liquidations",
    }


def test_a_line_of_known_and_unknown_instruments_is_loaded_once_each(tmp_path: Path, ingestor_dsn: str) -> None:
    add(ingestor_dsn, 1, "BTC-USDT-SWAP")
    write(tmp_path / "okx", [FRAMES["liquidations"], FRAMES["index price"]])
    load(tmp_path / "okx", ingestor_dsn)
    by_instrument = "SELECT instrument_id, count(*) FROM liquidations GROUP BY instrument_id ORDER BY instrument_id"
    assert ask(ingestor_dsn, by_instrument) == [(1, 2)]
    add(ingestor_dsn, 2, "NEW-USDT-SWAP")
    for _ in range(2):
        load(tmp_path / "okx", ingestor_dsn)
        assert ask(ingestor_dsn, by_instrument) == [(1, 2), (2, 1)]
    assert ask(ingestor_dsn, "SELECT count(*) FILTER (WHERE resolved_batch IS NULL), count(*) FROM parked_frames") == [
        (1, 2)
    ]
