"""Why a source, or the whole of sync, cannot go on."""

from __future__ import annotations

from collectors.errors import CryptopipError


class SyncError(CryptopipError):
    """The datalake cannot be merged into; nothing was changed by the transaction that found out."""


class SourceError(SyncError):
    """One ingestor cannot be merged; the others are."""
