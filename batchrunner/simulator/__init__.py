"""A local server that speaks the provider's API, keeps its own account, and breaks on demand.

Nothing here is imported by the rest of the engine; the engine meets it over a socket, like the real service.
"""

from .faults import FAULTS, Fault, parse_fault, parse_faults
from .server import Simulator
from .settings import SimulatorSettings

__all__ = ["FAULTS", "Fault", "Simulator", "SimulatorSettings", "parse_fault", "parse_faults"]
