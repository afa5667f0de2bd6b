"""A spool for each worker of a host: where a received task id goes if the database is gone."""

from __future__ import annotations

import fcntl
import os
from contextlib import AsyncExitStack
from pathlib import Path

from ..engine.spool import Spool
from ..ledger.errors import LedgerUnusable

MOST = 1000
"""Workers of one ledger on one host."""


def spool(beside: Path, stack: AsyncExitStack) -> tuple[Spool, Path]:
    """The first that no living worker has; what a dead one has left in it is found there. Closed with the stack. And
    the path that whatever else this worker keeps is named after.

    Raises:
        LedgerUnusable: it can't be made.
    """
    try:
        for number in range(MOST):
            name = beside.with_name(f"{beside.name}.{number}")
            fd = os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            stack.callback(os.close, fd)
            found = Spool(name)
            stack.callback(found.close)
            return found, name
    except OSError as error:
        raise LedgerUnusable(f"can't prepare {beside}.N.spool: {error.strerror}") from None
    raise LedgerUnusable(f"more than {MOST} workers on this host")
