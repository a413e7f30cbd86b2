"""The archive: the datalake's months as files that anybody can read, checked against it, and brought back from them."""

from collectors.archive.errors import ArchiveError
from collectors.archive.month import Month

__all__ = ["ArchiveError", "Month"]
