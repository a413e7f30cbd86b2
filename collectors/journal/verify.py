"""Whether a segment is whole, and if not where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from collectors.journal.format import Damage, JournalError, Position, is_mark, lines, parse_frame, parse_mark
from collectors.journal.reader import SegmentReader, is_writer_alive

State = Literal["closed", "crashed", "being written"]


class Verdict(Struct):
    """What reading a whole segment showed; ``first`` and ``last`` are receive times in ns, 0 where there is no frame.

    A crashed segment without a torn tail is whole: its writer died between two commits.
    """

    path: str
    state: State
    reason: str | None
    groups: int
    frames: int
    marks: int
    first: int
    last: int
    damages: list[Damage]

    @property
    def is_whole(self) -> bool:
        return not self.damages


def verify(path: Path) -> Verdict:
    """Read the segment from end to end. Raises OSError where the file cannot be read."""
    alive = is_writer_alive(path)
    verdict = Verdict(str(path), "being written" if alive else "crashed", None, 0, 0, 0, 0, 0, [])
    at = Position()
    with SegmentReader(path) as reader:
        for item in reader.read():
            if isinstance(item, Damage):
                verdict.damages.append(item)
                continue
            at = item.end
            verdict.groups += 1
            for offset, line in lines(item.data, item.start):
                try:
                    _count(verdict, line)
                except JournalError as error:  # its bytes are as they were written: a mistake of the writer's
                    verdict.damages.append(Damage(at.frame, at.frame, f"line at uncompressed byte {offset}: {error}"))
        torn = None if alive else reader.torn_tail()
        if torn is not None:
            verdict.damages.append(torn)
        if reader.close_mark is not None:
            verdict.state, verdict.reason = "closed", reader.close_mark.reason
    return verdict


def _count(verdict: Verdict, line: bytes) -> None:
    if is_mark(line):
        parse_mark(line)
        verdict.marks += 1
        return
    recv_ns, _ = parse_frame(line)
    verdict.frames += 1
    verdict.first = verdict.first or recv_ns
    verdict.last = recv_ns
