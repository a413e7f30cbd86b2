"""What journals there are: which segments make up each connection of each ingestor, in the order they came to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID, uuid5

from msgspec import Struct

from collectors.errors import UsageError
from collectors.journal import Group, Header, JournalError, SegmentReader, parse_mark, segment_of
from collectors.journal.format import SEGMENT_NAME

_NAMESPACE = UUID("5b1c6c1e-6f0c-4a53-9a57-6d6e2f0c7a10")


class Life(Struct, frozen=True):
    """One epoch's segments on one ingestor, in order; ``missing`` are numbers of segments that are not there."""

    ingestor: str
    stream: str
    exchange: str
    epoch: int
    paths: tuple[Path, ...]
    missing: tuple[int, ...]

    @property
    def incarnation(self) -> UUID:
        """Names the life of a scratch database that holds this epoch alone: the same in every run."""
        return uuid5(_NAMESPACE, f"{self.ingestor}/{self.stream}/{self.epoch}")


def lives_of(folders: Iterable[Path]) -> list[Life]:
    """The epochs of all segments below the folders, oldest first. Of copies of one segment the longest is taken.

    Raises UsageError where there is no segment, or nothing tells whose some are.
    """
    by_folder: dict[Path, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.journal.zst")):
            if SEGMENT_NAME.fullmatch(path.name):
                by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        raise UsageError("no segment (<epoch>-<number>.journal.zst) below the folders given: name journal folders")
    found: dict[tuple[str, str, str, int], dict[int, Path]] = {}
    for folder, paths in by_folder.items():
        headers = [header_of(path) for path in paths]
        known = next((header for header in headers if header is not None), None)
        if known is None:
            raise UsageError(f"no segment in {folder} has a header that can be read, so nothing tells whose they are")
        for path, own in zip(paths, headers, strict=True):
            header = own or known  # a folder is one stream of one ingestor
            place = segment_of(path)
            copies = found.setdefault((header.ingestor, header.stream, header.exchange, place.epoch), {})
            if place.seq not in copies or path.stat().st_size > copies[place.seq].stat().st_size:
                copies[place.seq] = path
    lives = [
        Life(*key, tuple(copies[seq] for seq in sorted(copies)), missing_of(sorted(copies)))
        for key, copies in found.items()
    ]
    return sorted(lives, key=lambda life: (life.epoch, life.ingestor, life.stream))


def missing_of(numbers: Sequence[int]) -> tuple[int, ...]:
    """The numbers from 0 on that an ordered list leaves out."""
    return tuple(sorted(set(range(numbers[-1])) - set(numbers))) if numbers else ()


def header_of(path: Path) -> Header | None:
    """A segment's header, None where it cannot be read."""
    with SegmentReader(path) as reader:
        first = next(iter(reader.read()), None)
    if not isinstance(first, Group):
        return None
    try:
        mark = parse_mark(first.data.split(b"\n", 1)[0])
    except JournalError:
        return None
    return mark if isinstance(mark, Header) else None
