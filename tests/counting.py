"""What a piece of work costs, in counts that are the same on every machine and at any load.

Calls into our own functions, and calls that these make into C (`sys.setprofile`): not those of libraries, whose next
version would move them. Statements and steps of SQLite's virtual machine (a trace callback, a progress handler).
Bounds stand in `costs.json`, by version of Python; how to renew them, in `test_costs.py`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import batchrunner

OURS = str(Path(batchrunner.__file__).parent) + os.sep
FILE = Path(__file__).with_name("costs.json")
RENEW = "BATCHRUNNER_RENEW_COSTS"

TOLERANCE = 1.1
"""What is more than a bound by this factor fails. A call more in a hundred is nobody's business, ten more are."""

CLOSELY = {"SQL statements a transition": 1.02}
"""The same where a single one more is what must not slip in."""

ELSEWHERE = 1.25
"""The same on a version of Python that no bounds were recorded for: what counts as a call differs a little."""


@dataclass(slots=True)
class Calls:
    """Calls of functions of ours, and calls that they make into C."""

    ours: int = 0
    into_c: int = 0

    @property
    def all(self) -> int:
        return self.ours + self.into_c


@contextmanager
def calls() -> Iterator[Calls]:
    """Counts the calls made in this thread meanwhile."""
    found = Calls()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if not frame.f_code.co_filename.startswith(OURS):
            return
        if event == "call":
            found.ours += 1
        elif event == "c_call":
            found.into_c += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield found
    finally:
        sys.setprofile(before)


@dataclass(slots=True)
class Sql:
    """Statements that a connection has run (those of triggers too), and steps of the virtual machine."""

    statements: int = 0
    steps: int = 0


@contextmanager
def sql(connection: sqlite3.Connection) -> Iterator[Sql]:
    """Counts what a connection does meanwhile."""
    found = Sql()

    def statement(text: str) -> None:
        found.statements += 1

    def step() -> int:
        found.steps += 1
        return 0

    connection.set_trace_callback(statement)
    connection.set_progress_handler(step, 1)
    try:
        yield found
    finally:
        connection.set_trace_callback(None)
        connection.set_progress_handler(None, 0)


def bounds() -> dict[str, dict[str, float]]:
    """Version of Python -> what -> its bound."""
    found: dict[str, dict[str, float]] = json.loads(FILE.read_text("utf-8"))
    return found


def limit(what: str) -> float:
    """The most that `what` may cost here, the tolerance included."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    known = bounds()
    if here in known and what in known[here]:
        return known[here][what] * CLOSELY.get(what, TOLERANCE)
    return max((known[v][what] for v in known if what in known[v]), default=0.0) * ELSEWHERE


def check(what: str, found: float) -> None:
    """Fail where `what` has become dearer. With BATCHRUNNER_RENEW_COSTS=1: write down what it costs now."""
    if os.environ.get(RENEW):
        known = bounds() if FILE.exists() else {}
        known.setdefault(f"{sys.version_info[0]}.{sys.version_info[1]}", {})[what] = round(found, 1)
        FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
        return
    most = limit(what)
    assert found <= most, (
        f"{what}: {found:.1f}, at most {most:.1f} are allowed: it has become dearer. If that is worth it, say so in "
        f"the commit and renew the bounds: {RENEW}=1 python -m pytest tests/unit/test_costs.py"
    )
