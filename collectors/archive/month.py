"""A calendar month, UTC: what one folder of the archive holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from collectors.errors import UsageError

_NAME = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


class Month(Struct, frozen=True, order=True):
    """A month of the UTC calendar; its text, ``2026-11``, is the name of its folder."""

    year: int
    number: int

    @classmethod
    def named(cls, name: str) -> Month:
        """The month written as ``2026-11``; raises UsageError."""
        match = _NAME.fullmatch(name)
        if match is None or match[1] == "0000":
            raise UsageError(f"{name!r} is no month: write it as 2026-11")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """The month in which ``moment`` lies."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    @property
    def name(self) -> str:
        """As in ``2026-11``."""
        return f"{self.year:04}-{self.number:02}"

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment behind it."""
        return self.following.start

    @property
    def following(self) -> Month:
        """The next one."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)

    def days(self) -> Iterator[tuple[datetime, datetime]]:
        """Start and end of each of its days."""
        day = self.start
        while day < self.end:
            yield day, day + timedelta(days=1)
            day += timedelta(days=1)


def is_month(name: str) -> bool:
    """Whether ``name`` is that of a month's folder."""
    return _NAME.fullmatch(name) is not None and not name.startswith("0000")
