"""From when to when somebody was provably listening, and what that leaves open."""

from collectors.coverage.continuity import check_continuity
from collectors.coverage.model import Continuity, Gap, Query

__all__ = ["Continuity", "Gap", "Query", "check_continuity"]
