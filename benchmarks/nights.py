"""Simulated nights, each in a process of its own (`virtual.py`), two at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .harness import ROOT, Context, measure


def simulated(context: Context, nights: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `virtual.Night` says -> what it found, in their order. Virtual time: the machine's load doesn't matter."""
    folder = context.room("nights")

    def one(night: dict[str, Any]) -> dict[str, Any]:
        command = [context.python, str(ROOT / "benchmarks" / "virtual.py"), json.dumps(night)]
        found: dict[str, Any] = json.loads(measure(command, folder, context.env(), keep=True).output)
        return found

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, nights))
