"""Which gaps can be filled, and from which ids; pure. Ids are whole numbers that rise with time."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from collectors.backfill.histories import HISTORIES
from collectors.coverage.model import Gap
from collectors.decode import Identity, decoder

INGESTOR: Final = "backfill:rest"
"""Whose copy a backfilled trade is; the colon keeps it apart from every ingestor's name."""
State = Literal["open", "empty", "mended", "out_of_reach"]
"""As in table ``backfills``: to be done; nothing was missed; all is there; the exchange does not tell all of it."""


class Missing(Struct, frozen=True):
    """Of the ids between two known ones, those that the history does not have: how many, the first and the last."""

    count: int
    first: int | None = None
    last: int | None = None


class Known(Struct, frozen=True):
    """What an earlier run found out about a gap; ``position``: trades from this id on are done."""

    state: State
    detail: str = ""
    position: int | None = None
    rows: int = 0


class Plan(Struct, frozen=True):
    """What is to be done about one gap.

    ``after`` and ``before`` bound the ids to ask for, both excluded; without ``after`` trades since the gap's start
    are asked for. ``state`` None: it cannot even be tried, ``detail`` says why; the gap stays listed.
    """

    instrument_id: int
    exchange: str
    symbol: str
    native_id: str
    start: datetime
    end: datetime
    state: State | None
    detail: str
    after: int | None = None
    before: int | None = None
    missing: int | None = None
    """Ids in the gap that the history does not have; None where ids do not tell."""

    @property
    def is_due(self) -> bool:
        """Whether the exchange is to be asked."""
        return self.state == "open"

    @property
    def is_left(self) -> bool:
        """Whether the gap stays listed as it is."""
        return self.state not in ("empty", "mended")


def unfillable(exchange: str) -> str | None:
    """Why this exchange's gaps cannot be filled at all; None where they can."""
    stream = decoder(exchange).streams.get("trades")
    if stream is None:
        return f"{exchange} offers no trades"
    if stream.identity is not Identity.ID:
        return (
            f"trades of {exchange} carry no id on the stream, so one told by REST cannot be known for one that was"
            " received: filling would double some"
        )
    if exchange not in HISTORIES:
        return f"how {exchange} tells past trades with the ids and times of its stream is not known to this version"
    return None


def plan_gap(
    instrument: tuple[int, str, str, str],
    gap: Gap,
    missing: Missing | None,
    known: Known | None,
    *,
    retry: bool = False,
) -> Plan:
    """What to do about a gap; ``missing`` is None where ids do not rise by one, ``known`` where it is new."""
    instrument_id, exchange, symbol, native_id = instrument
    state, detail = _without_asking(exchange, gap, missing, known, retry=retry)
    after, before = number(gap.last_id_before), number(gap.first_id_after)
    if missing is not None and missing.first is not None and missing.last is not None:
        after, before = missing.first - 1, missing.last + 1
    # Where ids tell, what is missing says where to go on: what a page left out is asked for again. Elsewhere the last
    # page may have reached beyond the last trade known, without a verdict: the next one then does so once more.
    elif known is not None and known.state == "open" and known.position is not None and before is not None:
        before = min(before, max(known.position, (after or 0) + 2))
    if state == "open" and after is not None and before is not None and after >= before:
        state, detail = None, f"ids fall from {after} to {before}: the exchange has begun to count anew"
    return Plan(
        instrument_id=instrument_id,
        exchange=exchange,
        symbol=symbol,
        native_id=native_id,
        start=gap.start,
        end=gap.end,
        state=state,
        detail=detail,
        after=after,
        before=before,
        missing=missing.count if missing is not None else None,
    )


def _without_asking(
    exchange: str, gap: Gap, missing: Missing | None, known: Known | None, *, retry: bool
) -> tuple[State | None, str]:
    """What can be said before the exchange is asked, and why; ``open`` where it is to be asked."""
    if known is not None and known.state in ("empty", "mended") and (missing is None or not missing.count):
        return known.state, known.detail
    if missing is not None and not missing.count:
        if gap.ids_between:
            return "mended", f"all {gap.ids_between:,} ids of the gap are there"
        return "empty", f"trade ids {gap.last_id_before} and {gap.first_id_after} follow each other"
    if known is not None and known.state == "out_of_reach" and not retry:
        return known.state, known.detail
    reason = unfillable(exchange)
    if reason is None and number(gap.first_id_after) is None:
        reason = "no trade is known behind it yet: run it again once somebody has listened there"
    if reason is None and gap.ended_by and number(gap.last_id_before) is None:
        reason = "no trade is known before it, though somebody had listened: its start cannot be told"
    return (None, reason) if reason is not None else ("open", f"the exchange tells {HISTORIES[exchange].reach}")


def number(text: str | None) -> int | None:
    """A trade id as a number; None where it is none."""
    return int(text) if text is not None and text.isdecimal() else None
