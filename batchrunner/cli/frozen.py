"""A frozen plan on the command line of `run`: what it was asked for is what the run is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .. import planfile
from ..core.frozen import Arguments, Frozen
from ..exits import UsageError
from ..ledger.address import Address


def thaw(
    path: Path, ledger: Address, manifests: Sequence[str], given: Arguments
) -> tuple[Frozen, tuple[str, ...], Arguments]:
    """Read a plan, and hold what else was given against it.

    Args:
        path: the plan's file.
        ledger: the ledger of the run.
        manifests: those on the command line; none for the plan's own.
        given: the other arguments on the command line; empty ones for the plan's own.

    Returns:
        the plan, the manifests and the arguments that the run takes.

    Raises:
        UsageError: it is no plan, or was made for something else.
    """
    frozen = planfile.read(path)
    own = frozen.arguments
    for name, wanted, said in (
        ("--profile", own.profile, given.profile),
        ("--var", dict(own.variables or {}), dict(given.variables or {})),
        ("--only", own.only, given.only),
        ("--tag", own.tags, given.tags),
    ):
        if said and said != wanted:
            raise UsageError(
                f"{path} was made {f'with {name} {_text(wanted)}' if wanted else f'without {name}'}; "
                f"leave out {name}, or make the plan again"
            )
    meant = planfile.ledger_of(path, frozen.ledger)
    if str(meant) != str(ledger):
        raise UsageError(f"{path} was made for the ledger {meant}, and the run would use {ledger}; name it with --db")
    return frozen, tuple(manifests) or tuple(_short(planfile.place_of(path, b.manifest)) for b in frozen.batches), own


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _short(path: Path) -> str:
    """As a user would write it: from the current folder where that is no longer."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
