"""What was asked of an exchange on one connection, and what it answered. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

_SEPARATORS = re.compile(r"[^a-z0-9]")


class _Request(Struct):
    native_ids: list[str]
    replies: int
    """Still expected."""


class Requests:
    """Replies that name no symbol belong to the oldest request that is not answered yet.

    ``pending`` are the symbols neither acknowledged nor refused.
    """

    def __init__(self, native_ids: Iterable[str], *, each_symbol: bool) -> None:
        self._each_symbol = each_symbol
        self._open: deque[_Request] = deque()
        self.pending: dict[str, None] = dict.fromkeys(native_ids)
        self.refused_ids: set[str] = set()

    def sent(self, native_ids: Sequence[str], text: str) -> None:
        """A request for some of ``native_ids``: those that its text names, where it names any."""
        named = [one for one in native_ids if _plain(one) in _plain(text)]
        asked = list(named or native_ids)
        self._open.append(_Request(asked, len(asked) if self._each_symbol else 1))

    def subscribed(self, named: Sequence[str]) -> list[str]:
        """The exchange acknowledged; the symbols that are new among them."""
        found: Sequence[str] = named
        if not named:
            request = self._oldest()
            if request is None:
                return []
            request.replies -= 1
            if request.replies > 0:
                return []
            found = self._open.popleft().native_ids
        return [one for one in found if self._settle(one)]

    def refused(self, named: Sequence[str], detail: str) -> list[str] | None:
        """The exchange refused; the symbols it meant, None where that cannot be told."""
        found: Sequence[str] = named
        if not named:
            request = self._oldest()
            if request is None:
                return None
            found = request.native_ids if len(request.native_ids) == 1 else _named_in(request.native_ids, detail)
            if not found:
                return None
        self.refused_ids.update(found)
        return [one for one in found if self._settle(one)]

    def _oldest(self) -> _Request | None:
        while self._open and not any(one in self.pending for one in self._open[0].native_ids):
            self._open.popleft()
        return self._open[0] if self._open else None

    def _settle(self, native_id: str) -> bool:
        if native_id not in self.pending:
            return False
        del self.pending[native_id]
        return True


def _plain(text: str) -> str:
    return _SEPARATORS.sub("", text.lower())


def _named_in(native_ids: Iterable[str], detail: str) -> list[str]:
    """Those that stand in the text as a word of their own."""
    return [
        one
        for one in native_ids
        if re.search(rf"(?<![a-z0-9]){re.escape(one)}(?![a-z0-9])", detail, re.IGNORECASE | re.ASCII)
    ]
