"""What a run keeps on its own machine for a ledger that is elsewhere: the spool, and the socket that a second terminal
asks at. Named after the ledger's identity, so that another spelling of its address finds the same."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LedgerUnusable


def place(identity: str) -> Path:
    """`$XDG_STATE_HOME/batchrunner/ledgers/IDENTITY`, whose folder is there and this user's alone.

    Raises:
        LedgerUnusable: the folder can't be made.
    """
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = Path(os.path.abspath(state)) / "batchrunner" / "ledgers"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerUnusable(
            f"can't make {folder}, where received task ids are kept if the database is gone: "
            f"{error.strerror}; set XDG_STATE_HOME"
        ) from None
    return folder / identity
