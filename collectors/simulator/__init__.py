"""A simulated exchange over a true matching book, with ground truth and faults."""

from collectors.simulator.faults import Applied, Fault, FaultLog, parse_fault
from collectors.simulator.market import MARKETS, Market
from collectors.simulator.replay import ReplayConfig
from collectors.simulator.simulator import Address, Config, Simulator
from collectors.simulator.truth import Truth

__all__ = [
    "MARKETS",
    "Address",
    "Applied",
    "Config",
    "Fault",
    "FaultLog",
    "Market",
    "ReplayConfig",
    "Simulator",
    "Truth",
    "parse_fault",
]
