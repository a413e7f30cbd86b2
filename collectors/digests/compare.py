"""Two histories side by side: the hours in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from collectors.digests.model import Digest
from collectors.errors import CryptopipError


class Difference(Struct, frozen=True):
    """An hour that is not the same on both sides; None where a side has no rows in it."""

    a: Digest | None
    b: Digest | None

    @property
    def what(self) -> Digest:
        """Channel, instrument and hour that differ."""
        found = self.a or self.b
        assert found is not None, "a difference has a side"
        return found


class Summary(Struct):
    """How a comparison went; counted while its differences are read."""

    hours: int = 0
    rows_a: int = 0
    rows_b: int = 0
    different: int = 0


def compare(a: Iterable[Digest], b: Iterable[Digest], summary: Summary) -> Iterator[Difference]:
    """The hours that differ, in order; both sides come ordered by ``Digest.key``, and memory does not grow with them.

    Raises CryptopipError where an instrument's id means another instrument on the other side.
    """
    left, right = _filled(a), _filled(b)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key < other.key):
            pair, one = Difference(one, None), next(left, None)
        elif one is None or other.key < one.key:
            pair, other = Difference(None, other), next(right, None)
        else:
            _check_same_instrument(one, other)
            pair = Difference(one, other)
            one, other = next(left, None), next(right, None)
        summary.hours += 1
        summary.rows_a += pair.a.rows if pair.a else 0
        summary.rows_b += pair.b.rows if pair.b else 0
        if pair.a is None or pair.b is None or pair.a.content != pair.b.content:
            summary.different += 1
            yield pair


def _filled(digests: Iterable[Digest]) -> Iterator[Digest]:
    """An hour without rows is the same as none."""
    return (digest for digest in digests if digest.rows)


def _check_same_instrument(a: Digest, b: Digest) -> None:
    if (a.exchange, a.native_id) != (b.exchange, b.native_id):
        raise CryptopipError(
            f"instrument {a.instrument_id} is {a.native_id} of {a.exchange} in A and {b.native_id} of {b.exchange} in"
            " B: these are histories of two fleets, whose ids mean different things"
        )
