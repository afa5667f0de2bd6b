"""What `doctor` looks at: everything outside the manifest that a night rests on. A composition root beside `app.py`."""

from __future__ import annotations

from collections.abc import Iterator

from ..ledger.address import Address
from . import account, ledger, machine
from .check import Check, Level, exit_code

__all__ = ["Check", "Level", "examine", "exit_code"]


def examine(db: Address, *, offline: bool) -> Iterator[Check]:
    """Every check, as it is made.

    Args:
        db: path of the ledger, there or not.
        offline: ask the provider, and object storage, nothing.
    """
    yield from machine.checks()
    yield from ledger.checks(db, offline=offline)
    yield from account.checks(db, offline=offline)
