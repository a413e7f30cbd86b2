"""Trades that nobody received, taken from the exchange's own history where it reaches."""

from collectors.backfill.plan import INGESTOR, Plan, State
from collectors.backfill.run import BackfillReport, BackfillRunningError, backfill

__all__ = ["INGESTOR", "BackfillReport", "BackfillRunningError", "Plan", "State", "backfill"]
