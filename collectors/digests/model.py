"""One digest, and how it is written in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import BinaryIO

import msgspec
from msgspec import Struct

from collectors.errors import CryptopipError


class DigestFileError(CryptopipError):
    """A file of digests that cannot be trusted; names the line."""


class Digest(Struct, frozen=True, forbid_unknown_fields=True):
    """What one hour of an instrument's channel comes to.

    ``hour`` is UTC; ``hash`` is the sum over the rows of the first 64 bits, signed, of the md5 of each row's text, in
    decimal (files/sql/datalake/0006_digests says how the text is built), so that the order of rows does not matter.
    """

    channel: str
    instrument_id: int
    hour: datetime
    rows: int
    hash: str
    exchange: str
    native_id: str

    @property
    def key(self) -> tuple[str, int, datetime]:
        """What it is a digest of, and the order in which all sources give them."""
        return self.channel, self.instrument_id, self.hour

    @property
    def content(self) -> tuple[int, str]:
        """What is compared."""
        return self.rows, self.hash


_DECODER = msgspec.json.Decoder(Digest)


def write_digests(digests: Iterable[Digest], file: BinaryIO) -> int:
    """One line of JSON each; returns their number."""
    written = 0
    for written, digest in enumerate(digests, 1):  # noqa: B007 - its last value is the answer
        file.write(msgspec.json.encode(digest) + b"\n")
    return written


def read_digests(lines: Iterable[bytes], name: str) -> Iterator[Digest]:
    """Digests of a file's lines; raises DigestFileError for a line that is none, or that is out of order."""
    before: Digest | None = None
    for number, line in enumerate(lines, 1):
        try:
            digest = _DECODER.decode(line)
        except msgspec.DecodeError as error:
            raise DigestFileError(
                f"{name}, line {number}: {error}; expected a line of `cryptopip digest export`"
            ) from None
        if digest.hour.tzinfo is None or digest.hour.timestamp() % 3600:
            raise DigestFileError(
                f"{name}, line {number}: hour {digest.hour.isoformat()}, expected a full hour with a zone"
            )
        if before is not None and digest.key <= before.key:
            raise DigestFileError(
                f"{name}, line {number}: {digest.channel} of instrument {digest.instrument_id} at"
                f" {digest.hour.isoformat()} comes twice or out of order; export the file anew"
            )
        before = digest
        yield digest
