"""Pull what ingestors have loaded and merge it into the datalake, each event once."""

from collectors.sync.errors import SourceError, SyncError
from collectors.sync.run import Counts, Progress, SourceReport, SyncReport, sync_once
from collectors.sync.target import SyncRunningError

__all__ = [
    "Counts",
    "Progress",
    "SourceError",
    "SourceReport",
    "SyncError",
    "SyncReport",
    "SyncRunningError",
    "sync_once",
]
