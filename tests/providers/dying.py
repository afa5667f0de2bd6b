"""The real command line that dies at a named step: `python -m tests.providers.dying POINT COUNT ARGUMENTS`.

The process is gone at the COUNT-th time that POINT is passed, as by SIGKILL; polls are milliseconds apart.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from batchrunner import app
from batchrunner.core.polling import PollPolicy
from batchrunner.engine.ports import Settings

QUICK = Settings(poll=PollPolicy(shortest=0.02, longest=0.1), retry_delay=0.02)


def main(point: str, count: int) -> None:
    run, left = app.run, count

    def die(passed: str) -> None:
        nonlocal left
        if passed == point:
            left -= 1
            if left == 0:
                os._exit(9)

    def run_and_die(options: app.RunOptions, watcher: app.Watcher) -> app.RunResult:
        return run(replace(options, settings=QUICK, crash=die), watcher)

    app.run = run_and_die
    from batchrunner.__main__ import main as command_line

    command_line()


if __name__ == "__main__":
    words = sys.argv[1:3]
    del sys.argv[1:3]
    main(words[0], int(words[1]))
