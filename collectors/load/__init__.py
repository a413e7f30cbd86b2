"""From journals to the ingestor's database: every row once, whatever is killed in between."""

from __future__ import annotations

from collectors.load.database import Database, StreamTakenError
from collectors.load.loader import Loader, Totals
from collectors.load.replay import replay
from collectors.load.supersede import ReloadError, reload

__all__ = ["Database", "Loader", "ReloadError", "StreamTakenError", "Totals", "reload", "replay"]
