"""Segments made for the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from collectors.journal import Damage, Group, JournalWriter, Limits, Position, Reason, SegmentReader, segments

SMALL_FRAMES = Limits(frame_bytes=600)


def writer(folder: Path, limits: Limits | None = None, epoch: int = 1_700_000_000_000_000_000) -> JournalWriter:
    return JournalWriter(
        folder,
        stream="binance",
        exchange="binance",
        url="wss://exchange.invalid/stream",
        ingestor="ing1",
        software={"cryptopip": "0"},
        epoch=epoch,
        limits=limits,
        clock=lambda: 1_700_000_000_000_000_001,
    )


def write(
    folder: Path,
    groups: Sequence[Sequence[bytes | str]],
    *,
    limits: Limits | None = None,
    close: Reason | None = "shutdown",
) -> Path:
    """A segment with one commit per group, frame number n received at 1000 + n; the first segment's path."""

    async def work() -> None:
        journal = writer(folder, limits)
        await journal.open()
        number = 1000
        for group in groups:
            for payload in group:
                journal.append(number, payload)
                number += 1
            await journal.commit()
        if close is None:
            await journal.abandon()
        else:
            await journal.close(close)

    asyncio.run(work())
    return segments(folder)[0]


def read(path: Path, position: Position | None = None) -> tuple[list[Group], list[Damage]]:
    """All groups and all damage, the torn tail too."""
    with SegmentReader(path, position) as reader:
        items = list(reader.read())
        torn = reader.torn_tail()
    damages = [item for item in items if isinstance(item, Damage)]
    return [item for item in items if isinstance(item, Group)], damages + ([torn] if torn else [])
