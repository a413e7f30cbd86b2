"""What is computed from the merged history, and made anew where that changes: bars."""

from collectors.derived.ohlcv import DeriveReport, derive

__all__ = ["DeriveReport", "derive"]
