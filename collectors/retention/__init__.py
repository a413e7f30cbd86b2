"""Pruning: what may leave a host because it is provably elsewhere, and in which order."""

from collectors.retention.run import Item, Report, prune

__all__ = ["Item", "Report", "prune"]
