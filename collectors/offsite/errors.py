"""What an operator is told when something cannot be brought off-site, checked there or fetched."""

from __future__ import annotations

from collectors.errors import CryptopipError


class OffsiteError(CryptopipError):
    """Something about an off-site copy that the operator can act on."""
