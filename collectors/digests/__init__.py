"""Digests: count and hash per instrument, channel and hour; the same wherever the same history lies."""

from collectors.digests.compare import Difference, Summary, compare
from collectors.digests.model import Digest
from collectors.digests.source import Source, Window

__all__ = ["Difference", "Digest", "Source", "Summary", "Window", "compare"]
