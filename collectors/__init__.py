"""The data plane of CRYPTOPIP: record, journal, decode, load, sync. The command is ``cryptopip``."""

__version__ = "0.1.0"
