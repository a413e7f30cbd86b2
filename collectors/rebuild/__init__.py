"""A datalake made anew from journals alone."""

from collectors.rebuild.plan import Life, lives_of
from collectors.rebuild.run import Report, rebuild

__all__ = ["Life", "Report", "lives_of", "rebuild"]
