"""From when to when somebody was provably listening, and what that leaves open."""

from collectors.coverage.continuity import Continuity, Gap, Query, check_continuity

__all__ = ["Continuity", "Gap", "Query", "check_continuity"]
