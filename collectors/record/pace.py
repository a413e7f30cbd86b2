"""When to do it again: back-off between attempts, a budget of requests, the next full hour. Pure; times in seconds."""

from __future__ import annotations

import random
from collections.abc import Callable

HEALTHY_S = 60.0


class Backoff:
    """Delays that double up to a limit, each cut by up to half at random, so that clients do not return in step.

    A run of at least a minute was healthy: the next failure is the first again.
    """

    def __init__(self, first: float = 0.5, limit: float = 30.0, draw: Callable[[], float] = random.random) -> None:
        self._first = first
        self._limit = limit
        self._draw = draw
        self._failures = 0

    def delay(self, lived: float = 0.0) -> float:
        """How long to wait after a run of ``lived`` seconds failed."""
        if lived >= HEALTHY_S:
            self._failures = 0
        rung = min(self._first * 2.0**self._failures, self._limit)
        if rung < self._limit:
            self._failures += 1
        return rung * (0.5 + self._draw() / 2)

    def reset(self) -> None:
        """It went well: the next failure is the first again."""
        self._failures = 0


class Budget:
    """At most ``burst`` requests at once and ``per_minute`` on average."""

    def __init__(self, *, burst: int, per_minute: float, now: float) -> None:
        self._burst = burst
        self._rate = per_minute / 60
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one request; how long to wait before making it."""
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst) - 1
        self._at = now
        return max(-self._tokens / self._rate, 0.0)

    def pause(self, seconds: float, now: float) -> None:
        """The exchange wants to be left alone for so long; afterwards requests start one by one."""
        self._at = now + seconds
        self._tokens = 0.0


def until_full_hour(now: float) -> float:
    """Seconds until the next full hour UTC, midnight among them; ``now`` since 1970."""
    return 3600 - now % 3600
