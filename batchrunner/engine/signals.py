"""What a signal means to a run."""

from __future__ import annotations

import asyncio
import os
import signal

from .control import Control, Stop


def on_signals(control: Control) -> None:
    """The first signal stops submitting and ends the run when POSTs on the wire are recorded; the second ends the
    process at once (what was on the wire is found as unconfirmed by the next run)."""
    loop = asyncio.get_running_loop()
    seen = 0

    def caught(reason: Stop, code: int) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(code)
        control.halt(reason, "finishing the submissions on the wire; a second signal stops at once")

    loop.add_signal_handler(signal.SIGINT, caught, Stop.INTERRUPTED, 130)
    loop.add_signal_handler(signal.SIGTERM, caught, Stop.TERMINATED, 143)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # the terminal was closed; nohup means: go on
        loop.add_signal_handler(signal.SIGHUP, caught, Stop.TERMINATED, 143)
