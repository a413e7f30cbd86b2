"""What a continuity check asks and answers; times UTC, durations in seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from msgspec import Struct

Kind = Literal["not_listening", "sequence_broken", "ids_missing", "stale", "silent", "crossed", "clock_skew"]
"""What is wrong.

``not_listening``: recording was meant and no ingestor was connected. ``sequence_broken``: an ingestor was, but updates
of the book were missing, so that the book is unknown until the next snapshot. ``ids_missing``: ids of trades or quotes
jump. ``stale``: the newest connection is not known to have ended, and nothing has been heard of it since. ``silent``:
connected, but with hardly a row in an hour, against the usual rate of this instrument. ``crossed``: bids at (locked) or
above (crossed) asks. ``clock_skew``: events arrived before they happened, or all of an hour later than any network is.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Query(Struct, frozen=True):
    """What to look at; ``symbol`` with ``*`` and ``?``.

    Without ``until`` the check reaches to now, but what has not yet had ``settle`` seconds to arrive is no gap.
    ``rates`` looks for silent hours (digests of a week before are read too), ``read_rows`` for crossed quotes and clock
    skew (every row is read), ``empty_hours`` lists the hours without a row.
    """

    since: datetime | None = None
    until: datetime | None = None
    exchange: str | None = None
    symbol: str | None = None
    channel: str | None = None
    min_gap: float = 0.0
    settle: float = 120.0
    rates: bool = False
    read_rows: bool = False
    empty_hours: bool = False


class Interval(Struct, frozen=True):
    """A stretch of time, UTC."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start).total_seconds()


class Edge(Struct, frozen=True):
    """Where an ingestor's listening ended before a gap (``ended_by`` None: end not known), or began after it.

    ``id`` and ``time`` (of the exchange) are those of the event there; ``is_sequence``: ids prove that none is missing.
    """

    ingestor: str
    at: datetime
    id: str | None
    ended_by: str | None = None
    time: datetime | None = None
    is_sequence: bool = False


class Gap(Struct, frozen=True):
    """A stretch in which recording was meant and nobody was listening.

    ``ids_between`` are the ids that the exchange gave out meanwhile, ``missing_ids`` those of them that the history
    does not have (not even by backfill); None where ids do not tell.
    """

    start: datetime
    end: datetime
    seconds: float
    last_id_before: str | None
    first_id_after: str | None
    ended_by: dict[str, str | None]
    """Per ingestor why its last listening before the gap ended; None where it is not known to have ended."""
    kind: Kind = "not_listening"
    ids_between: int | None = None
    missing_ids: int | None = None
    backfill: Literal["open", "empty", "mended", "out_of_reach"] | None = None
    """What ``cryptopip backfill`` made of it (table backfills has the states); None where it never looked."""
    backfill_detail: str = ""

    @property
    def is_mended(self) -> bool:
        """Whether ids, or the exchange's own list of trades, prove that the history has all there was."""
        if self.missing_ids is None:
            return self.backfill in ("empty", "mended")
        return self.missing_ids == 0

    @property
    def causes(self) -> str:
        """``ended_by`` for a person."""
        causes = ", ".join(f"{ingestor}: {cause or 'not known yet'}" for ingestor, cause in self.ended_by.items())
        return causes or "nobody had listened yet"

    @property
    def mended(self) -> str:
        """Whether it is mended, for a person."""
        if self.missing_ids is None and self.is_mended:
            return f"yes, {self.backfill_detail}"
        reason = f"; {self.backfill_detail}" if self.backfill == "out_of_reach" else ""
        if self.missing_ids is None:
            return f"no{reason}" if reason else "cannot be told"
        if not self.ids_between:
            return "nothing was missed"
        if not self.missing_ids:
            return f"yes, {self.ids_between:,} ids"
        return f"no, {self.missing_ids:,} of {self.ids_between:,} ids missing{reason}"


class Trouble(Struct, frozen=True):
    """Something wrong while somebody was listening; ``detail`` is for a person, ``ids`` the first and last in doubt."""

    kind: Kind
    start: datetime
    end: datetime
    detail: str
    ids: tuple[int, int] | None = None


class EmptyHour(Struct, frozen=True):
    """A UTC hour without a row: ``covered_seconds`` of it somebody was listening all the same."""

    hour: datetime
    covered_seconds: float


class Lag(Struct, frozen=True):
    """Seconds from the exchange's time to receipt: percentiles and the worst."""

    p50: float
    p90: float
    p99: float
    max: float


class Continuity(Struct, frozen=True):
    """One instrument's channel; ``ratio`` is None where recording was not meant at all.

    ``missing`` are all stretches in which recording was meant and nobody was listening, ``gaps`` those of them that are
    long enough to be listed.
    """

    instrument_id: int
    exchange: str
    symbol: str
    channel: str
    until: datetime
    recorded_seconds: float
    covered_seconds: float
    ratio: float | None
    rows: int
    covered: list[Interval]
    gaps: list[Gap]
    missing: list[Interval] = []
    troubles: list[Trouble] = []
    empty_hours: list[EmptyHour] = []
    lag: Lag | None = None

    def found(self) -> list[Kind]:
        """The kinds of all that is wrong, gaps that are mended left out."""
        return [gap.kind for gap in self.gaps if not gap.is_mended] + [trouble.kind for trouble in self.troubles]
