"""Names and headers of WAL. Layouts: src/include/access/xlog_internal.h and catalog/pg_control.h of PostgreSQL 17."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from cryptopip_wale.errors import WaleError

# A segment, its partial copy after a promotion, a backup's history file, a timeline's history file.
ARCHIVABLE = re.compile(r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
SEGMENT = re.compile(r"[0-9A-F]{24}(\.partial)?")
# The long page header that opens every segment: magic, info, timeline, address, rest length, system identifier.
_HEADER = struct.Struct("=HHIQI4xQ")
_LONG_HEADER = 0x0002  # XLP_LONG_HEADER in info


def require_archivable(name: str) -> None:
    """Refuse what is no name of an archived file, so a path never leaves the archive."""
    if not ARCHIVABLE.fullmatch(name):
        raise WaleError("usage", f"the file is named {name!r}, expected a WAL segment or a history file")


def cluster_identifier(data: Path) -> str:
    """The system identifier of the cluster in ``data``."""
    control = data / "global" / "pg_control"
    with control.open("rb") as file:
        return str(struct.unpack("=Q", file.read(8))[0])


def segment_header(content: bytes) -> tuple[str, int]:
    """System identifier and first byte's LSN that a segment names itself; ``corrupt`` where it names none."""
    if len(content) >= _HEADER.size:
        _, info, _, address, _, identifier = _HEADER.unpack_from(content)
        if info & _LONG_HEADER:
            return str(identifier), address
    raise WaleError("corrupt", "the file does not begin with the header of a WAL segment")


def parse_lsn(text: str) -> int:
    """Bytes of WAL before ``0/3000028``."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def segment_number(name: str, segment_bytes: int) -> int:
    """How many segments of this timeline lie before the one named so."""
    return int(name[8:16], 16) * ((1 << 32) // segment_bytes) + int(name[16:24], 16)


def segments(timeline: int, first: int, last: int, segment_bytes: int) -> Iterator[str]:
    """Names of the segments numbered ``first`` to ``last``, both included."""
    per_file = (1 << 32) // segment_bytes
    for number in range(first, last + 1):
        yield f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"
