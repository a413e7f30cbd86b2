"""Faults: what to do wrong, to whom, how often; and the record of every wrong that was done."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import Literal, get_args

import msgspec
from msgspec import Struct

FrameFault = Literal["drop", "duplicate", "reorder", "delay", "malformed"]
FaultKind = Literal[
    "drop", "duplicate", "reorder", "delay", "malformed", "stall", "disconnect", "refuse", "lifetime", "status", "skew"
]
FRAME_FAULTS: frozenset[str] = frozenset(get_args(FrameFault))
KEPT_RECORDS = 100_000


class Fault(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault to inject.

    ``drop``, ``duplicate``, ``reorder`` (swap with the next of its stream), ``delay`` (by ``delay_ms``) and
    ``malformed`` (cut in half) hit single frames; ``stall`` keeps sockets open and sends nothing, not even pongs;
    ``disconnect`` drops the sockets once; ``refuse`` drops them and closes the port; ``lifetime`` closes each
    connection ``seconds`` after it began, as the real exchange does after 24 hours; ``status`` answers REST requests
    with ``status``; ``skew`` moves the event times by ``skew_ms``.

    ``stream`` is trade, bookTicker or depth, ``path`` the end of a REST path; None: all. ``probability`` and ``count``
    say how often, ``after`` and ``seconds`` from when (s from injection) and how long; None: until cleared.
    """

    kind: FaultKind
    listener: str = "*"
    stream: Literal["trade", "bookTicker", "depth"] | None = None
    symbol: str | None = None
    path: str | None = None
    probability: float = 1.0
    count: int | None = None
    after: float = 0.0
    seconds: float | None = None
    delay_ms: int = 500
    status: int = 429
    skew_ms: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"fault {self.kind}: probability {self.probability}, expected above 0 and at most 1")
        if self.kind in ("refuse", "lifetime") and not self.seconds:
            raise ValueError(f"fault {self.kind}: no seconds, expected seconds=N")
        if self.kind == "status" and not 400 <= self.status <= 599:
            raise ValueError(f"fault status: {self.status}, expected an HTTP error of 400 to 599")


def parse_fault(text: str) -> Fault:
    """A fault from the command line: ``drop:listener=a,stream=depth,probability=0.01,after=10,seconds=5``.

    Raises ValueError naming what was found and what was expected.
    """
    kind, _, rest = text.partition(":")
    fields: dict[str, str] = {"kind": kind}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"fault {text!r}: found {pair!r}, expected key=value")
        fields[key] = value
    try:
        return msgspec.convert(fields, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(
            f"fault {text!r}: {error}; expected KIND:key=value,... as in drop:listener=a,count=3"
        ) from error


class Applied(Struct, frozen=True, omit_defaults=True):
    """One wrong that was done, ``at_ns`` since 1970; ``detail`` tells the status sent and the like."""

    at_ns: int
    kind: FaultKind
    listener: str
    connection: int | None = None
    stream: str | None = None
    symbol: str | None = None
    ids: tuple[int, int] | None = None
    detail: str = ""


class FaultLog:
    """Every applied fault: counted for good, the last 100,000 listed."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.applied: deque[Applied] = deque(maxlen=KEPT_RECORDS)

    def record(self, applied: Applied) -> None:
        self.counts[(applied.listener, applied.kind)] += 1
        self.applied.append(applied)

    def count(self, kind: FaultKind, listener: str | None = None) -> int:
        """How often a kind of fault was applied, on one listener or on all."""
        return sum(n for (where, what), n in self.counts.items() if what == kind and listener in (None, where))


class ActiveFault:
    """A fault while it lasts; ``hits`` decides by chance and counts down."""

    __slots__ = ("fault", "left", "since", "until")

    def __init__(self, fault: Fault, now: float) -> None:
        self.fault = fault
        self.left = fault.count
        self.since = now + fault.after
        # The seconds of a lifetime are the age of a connection, not of the fault.
        lasts = None if fault.kind == "lifetime" else fault.seconds
        self.until = None if lasts is None else self.since + lasts

    def is_over(self, now: float) -> bool:
        return self.left == 0 or (self.until is not None and now >= self.until)

    def is_on(self, now: float) -> bool:
        return now >= self.since and not self.is_over(now)

    def hits(self, now: float, random: Random, *, stream: str | None = None, symbol: str | None = None) -> bool:
        """Whether the fault strikes here and now; a strike uses up one of its count."""
        fault = self.fault
        if not self.is_on(now):
            return False
        if fault.stream is not None and (stream is None or not stream.startswith(fault.stream)):
            return False
        if fault.symbol is not None and fault.symbol != symbol:
            return False
        if fault.probability < 1 and random.random() >= fault.probability:
            return False
        if self.left is not None:
            self.left -= 1
        return True
