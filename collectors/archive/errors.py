"""What an operator is told when an archive cannot be written, checked or brought back."""

from __future__ import annotations

from collectors.errors import CryptopipError


class ArchiveError(CryptopipError):
    """Something about an archive that the operator can act on."""
