"""What a signal means to a run."""

from __future__ import annotations

import asyncio
import os
import signal

from .control import Control, Stop


def on_signals(control: Control) -> None:
    """The first SIGINT or SIGTERM stops submitting and ends the run when POSTs on the wire are recorded; the second
    ends the process at once (what was on the wire is found as unconfirmed by the next run).

    SIGHUP, for a terminal that was closed, stops as the first one does and never counts as a second: shell and kernel
    both send it, and a session manager sends it together with SIGTERM, though nobody has asked twice.
    """
    loop = asyncio.get_running_loop()
    asked = 0

    def stop(reason: Stop) -> None:
        control.halt(reason, "finishing the submissions on the wire; a second signal stops at once")

    def caught(reason: Stop, code: int) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(code)
        stop(reason)

    loop.add_signal_handler(signal.SIGINT, caught, Stop.INTERRUPTED, 130)
    loop.add_signal_handler(signal.SIGTERM, caught, Stop.TERMINATED, 143)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means: go on
        loop.add_signal_handler(signal.SIGHUP, stop, Stop.TERMINATED)
