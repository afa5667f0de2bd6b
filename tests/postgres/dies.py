"""The command line in a process that `kill -9`s itself: `python -m tests.postgres.dies POINT N ARGUMENTS...`.

A point is one of `engine.ports.CRASH_POINTS` or `cluster.points.CRASH_POINTS`, or what a ledger in PostgreSQL has
besides: `commit.ready`, just before a COMMIT is sent, and `commit.sent`, when it is durable and nobody in this process
has heard of it.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

from batchrunner import app
from batchrunner.cli import errors
from batchrunner.cluster import shift
from batchrunner.ledger.postgres.link import Link


class Dying:
    def __init__(self, point: str, number: int) -> None:
        self._point = point
        self._left = number

    def __call__(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    dying = Dying(sys.argv[1], int(sys.argv[2]))
    setattr(app, "RunOptions", partial(app.RunOptions, crash=dying))  # noqa: B010
    setattr(shift, "WorkerOptions", partial(shift.WorkerOptions, crash=dying))  # noqa: B010
    commit = Link._commit

    def committed(link: Link) -> Any:
        dying("commit.ready")
        found = commit(link)
        dying("commit.sent")
        return found

    setattr(Link, "_commit", committed)  # noqa: B010
    sys.argv[1:3] = []
    return errors.main()


if __name__ == "__main__":
    sys.exit(main())
