"""batchrunner: hundreds of paid, slow, remote generation jobs, done by morning, each paid for once.

The Python interface (docs/api.md) is imported when it is first used: `import batchrunner` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, whose import costs more than this module
if TYPE_CHECKING:
    from .api import Event, events, load, plan, run
    from .exits import UsageError
    from .ledger.errors import LedgerBusy, LedgerUnusable
    from .manifest import Finding, Manifest, ManifestError
    from .planning import Plan
    from .runs import RunResult

__version__ = "0.1.0"

__all__ = [
    "Event",
    "Finding",
    "LedgerBusy",
    "LedgerUnusable",
    "Manifest",
    "ManifestError",
    "Plan",
    "RunResult",
    "UsageError",
    "events",
    "load",
    "plan",
    "run",
]

_ROOMS = {
    "UsageError": "exits",
    "LedgerBusy": "ledger.errors",
    "LedgerUnusable": "ledger.errors",
    "Finding": "manifest",
    "Manifest": "manifest",
    "ManifestError": "manifest",
    "RunResult": "night",
    "Plan": "planning",
}
"""Where a name is made, for those that are not made in `api`."""


if not TYPE_CHECKING:  # otherwise every misspelt name would be there for a type checker

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'batchrunner' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"batchrunner.{_ROOMS.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
