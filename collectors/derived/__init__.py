"""What is computed from the merged history, and made anew where that changes: bars, books at full hours, quotes."""

from collectors.derived.books import BooksReport, derive_books
from collectors.derived.ohlcv import DeriveReport, derive

__all__ = ["BooksReport", "DeriveReport", "derive", "derive_books"]
