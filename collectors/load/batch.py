"""What one transaction of the loader writes. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, field

from collectors.decode import Decoder
from collectors.events import CHANNELS, Channel
from collectors.journal import Damage, Position
from collectors.load.coverage import EndedBy, Interval

Reason = Literal["decode", "unknown_instrument"]


class Parked(Struct):
    """A line that could not be loaded, by its place in the segment."""

    line_offset: int
    line_length: int
    received_at: int
    reason: Reason
    detail: str


class Rejected(Struct):
    """An event whose time cannot be right, with the place of its line."""

    line_offset: int
    line_length: int
    received_at: int
    event_time: int
    channel: Channel
    native_id: str
    reason: str
    event: bytes


class Stream(Struct, frozen=True):
    """Whose rows these are: ids in the database, and the exchange's decoder."""

    id: int
    decoder: Decoder


class Batch(Struct):
    """Everything one transaction writes."""

    number: int
    segment: str
    epoch: int
    from_offset: int = 0
    to_offset: int = 0
    received_from: str | None = None
    received_to: str | None = None
    frames: int = 0
    rows: dict[Channel, list[str]] = field(default_factory=lambda: {channel: [] for channel in CHANNELS})
    parked: list[Parked] = []
    rejected: list[Rejected] = []
    damages: list[Damage] = []
    intervals: list[Interval] = []
    ends_with: EndedBy | Literal["rotate"] | None = None
    """Why the segment ended, where it did; set by what read it."""
    position: Position | None = None
    """Where to resume; None leaves the journal's position alone (parked frames loaded later)."""
    is_done: bool = False
    resolved: list[int] = []
    """Parked frames that this batch settles."""
    state: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing but the time it reaches to would be written."""
        kept = self.frames or self.parked or self.rejected or self.damages or self.intervals or self.is_done
        return not (kept or any(self.rows.values()))  # a snapshot is a row without a frame


class Instruments:
    """Ids by the exchange's own names; of a name listed several times, the listing at the time asked for."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """``rows``: native_id, id, listed_at (ns)."""
        self.rows = sorted(rows, key=lambda row: (row[0], row[2]))
        self.native_ids = {row[0] for row in self.rows}

    def at(self, ns: int) -> dict[str, int]:
        """Id by native_id; a name listed once is meant whatever the time."""
        ids: dict[str, int] = {}
        for native_id, instrument_id, listed_at in self.rows:
            if listed_at <= ns or native_id not in ids:
                ids[native_id] = instrument_id
        return ids
