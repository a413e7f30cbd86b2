"""Which load batches one transaction merges: a pure choice, so that memory and staging stay the same at any backlog."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from collectors.events import CHANNELS, Channel
from collectors.sync.errors import SourceError

# A book event of some fifty levels takes about as much staging as this many trades (measured in bytes of binary COPY).
BOOK_EVENT_WEIGHT = 12


class Batch(Struct, frozen=True):
    """A loader's commit as the ingestor's ``load_batches`` tells it; times UTC, None where it has no rows."""

    number: int
    trades: int
    quotes: int
    book_events: int
    received_from: datetime | None
    received_to: datetime | None
    derivatives: int = 0
    liquidations: int = 0
    superseded_by: int | None = None
    """Another took its place: its rows are no longer to be merged."""
    reload_to: int | None = None
    """It belongs to an epoch loaded again, which ends with this batch."""

    @property
    def weight(self) -> int:
        """Staging it will take, in rows the size of a trade."""
        if self.superseded_by is not None:
            return 0
        return self.trades + self.quotes + self.derivatives + self.liquidations + BOOK_EVENT_WEIGHT * self.book_events


class BatchRange(Struct, frozen=True):
    """Batches ``first`` to ``last``, both included, and what they hold together."""

    first: int
    last: int
    rows: dict[Channel, int]
    received_from: datetime | None
    received_to: datetime | None
    superseded: tuple[int, ...] = ()
    """Of its batches those whose rows do not count."""
    is_reload: bool = False
    """An epoch loaded again, as a whole; rows and times are not told."""


def take(batches: Iterable[Batch], watermark: int, max_weight: int) -> BatchRange | None:
    """The batches after ``watermark`` that fit into ``max_weight``, one at least; None where there are none.

    An epoch loaded again is a range of its own, whatever its weight.

    Batches are numbered densely; raises SourceError where one is missing, for its rows would be lost unnoticed.
    """
    taken: list[Batch] = []
    weight = 0
    for batch in batches:
        expected = taken[-1].number + 1 if taken else watermark + 1
        if batch.number != expected:
            if taken:
                break  # the next range starts at the hole and says so
            raise SourceError(
                f"load batch {expected} was expected next and {batch.number} found: the batches between are gone from"
                " load_batches, so their rows cannot be merged; restore them, or load their journals again"
            )
        if batch.reload_to is not None and batch.superseded_by is None:
            if taken:
                break  # an epoch loaded again is a range of its own
            return BatchRange(batch.number, batch.reload_to, {}, None, None, is_reload=True)
        weight += batch.weight
        if taken and weight > max_weight:
            break
        taken.append(batch)
    if not taken:
        return None
    counting = [batch for batch in taken if batch.superseded_by is None]
    return BatchRange(
        first=taken[0].number,
        last=taken[-1].number,
        rows={channel: sum(getattr(batch, channel) for batch in counting) for channel in CHANNELS},
        received_from=min((b.received_from for b in counting if b.received_from is not None), default=None),
        received_to=max((b.received_to for b in counting if b.received_to is not None), default=None),
        superseded=tuple(batch.number for batch in taken if batch.superseded_by is not None),
    )
