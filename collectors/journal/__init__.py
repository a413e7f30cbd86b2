"""The journal: every frame as received, in plain lines, durable before anything counts on it.

The format, version 1
=====================
A stream is a folder, ``<journal>/<stream>/``, where ``stream`` is the exchange's id. One connection's life is an
*epoch*, named by ns since 1970 at its start, later than every epoch before it on this ingestor. Its *segments* are
the files ``<epoch>-<number>.journal.zst``, number 000000, 000001, ...; they are only ever appended to, and by one
process, which holds ``flock(LOCK_EX)`` on the file as long as it lives.

A segment decompresses (zstd, several frames one after another, no checksums, no dictionary, windows up to 8 MiB) to
lines of UTF-8 that end in ``\\n``:

* ``<recv_ns> <payload>`` is a frame: ns since 1970 (UTC) when it was received, and what was received. A payload that is
  not UTF-8, holds ``\\n`` or ``\\r``, or starts with ``base64:`` is written ``base64:<the payload in base64>``.
* ``{"mark":"<kind>","at":<ns>,...}`` is a mark: a line of our own, JSON. Frames start with a digit, marks with ``{``.

====================== ===============================================================================================
mark                   fields besides ``at``
====================== ===============================================================================================
header                 stream exchange url ingestor epoch segment software format; the first line of every segment
subscribed             channel symbols[]: the exchange acknowledged; ``unsubscribed`` likewise. Symbols are native ids
gap                    channel symbol expected found: an update id does not follow the one before it (informative)
snapshot               channel symbol url requested_at reply: a REST snapshot; ``at`` is when its reply was received,
                       ``reply`` the raw body as a string
commit                 alive lines offset crc: see below
close                  reason: disconnect stall crash disk shutdown handover venue, or rotate: the epoch goes on in the
                       next segment. Nothing but its commit follows
====================== ===============================================================================================

Lines are written in *groups*, each closed by a commit line and fsync'd: what is before a commit is durable, and what no
commit follows does not count. ``alive`` is when the last frame or heartbeat was received up to this commit, ``lines``
the number of lines in the group, ``offset`` the uncompressed bytes of the segment before the group, ``crc`` (always the
last field) the CRC-32 of the group's bytes and of the commit line itself up to and with ``"crc":``.

A zstd block never spans two groups, and a zstd frame (some MB or 60 s) starts and ends with a group. So a reader
follows a file that grows, block by block, and behind damage goes on at the next zstd frame whose first group fits its
crc; ``offset`` then tells where it is. A segment without a close mark whose lock can be had belonged to a process that
crashed; its connection was alive up to the last commit's ``alive``. To read a whole file:
``zstd -dc FILE | grep -v '^{'`` gives the frames, in hftbacktest's layout.
"""

from collectors.journal.format import (
    FORMAT,
    Close,
    Commit,
    Damage,
    Gap,
    Group,
    Header,
    JournalError,
    Mark,
    Position,
    Reason,
    Segment,
    Snapshot,
    Subscribed,
    Unsubscribed,
    is_mark,
    lines,
    parse_frame,
    parse_mark,
    segment_of,
    segments,
)
from collectors.journal.reader import SegmentReader, is_writer_alive, read_capture
from collectors.journal.writer import JournalWriter, Limits, next_epoch, remove_leftovers

__all__ = [
    "FORMAT",
    "Close",
    "Commit",
    "Damage",
    "Gap",
    "Group",
    "Header",
    "JournalError",
    "JournalWriter",
    "Limits",
    "Mark",
    "Position",
    "Reason",
    "Segment",
    "SegmentReader",
    "Snapshot",
    "Subscribed",
    "Unsubscribed",
    "is_mark",
    "is_writer_alive",
    "lines",
    "next_epoch",
    "parse_frame",
    "parse_mark",
    "read_capture",
    "remove_leftovers",
    "segment_of",
    "segments",
]
