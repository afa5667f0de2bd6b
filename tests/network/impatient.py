"""The real command line with short patience: `python -m tests.network.impatient ARGUMENTS`.

What a person can't set, and waits a minute to an hour for, is told in the environment; nothing else is changed, but
that polls and repeated downloads are milliseconds apart.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from batchrunner import app, workbench
from batchrunner.core.polling import PollPolicy
from batchrunner.engine import control
from batchrunner.engine.ports import Settings
from batchrunner.providers import fetch
from batchrunner.providers.reapi import ReApi, ReApiSettings

GATE = "NETWORK_GATE"
"""Environment variable: a file that must be there before an intent is recorded."""

PATIENCE = "NETWORK_PATIENCE"
"""Environment variable: a JSON object of these numbers, those that differ from the product's."""

USUAL = {
    "submit": 180.0,  # seconds for a POST
    "poll": 30.0,  # for a poll
    "stall": 60.0,  # without a byte of a download
    "download": 900.0,  # for which a download may go on failing
    "nonsense": 3600.0,  # for which the polls of a task may go on failing
    "lost": 900.0,  # for which a task may be unknown
    "unreachable": 900.0,  # without any answer
    "largest": 4 << 30,  # bytes of an output
}


def wait_at(gate: Path) -> Callable[[str], None]:
    """Hold the process when it has a connection and has sent nothing, until the file is there."""

    def pass_gate(point: str) -> None:
        end = time.monotonic() + 60.0
        while point == "submit.before_intent" and not gate.exists():
            assert time.monotonic() < end, "nobody opened the gate"
            time.sleep(0.005)

    return pass_gate


def make_impatient() -> None:
    """Cut the patience as the environment says."""
    patience = USUAL | json.loads(os.environ.get(PATIENCE, "{}"))
    assert patience.keys() == USUAL.keys()
    gate, run = os.environ.get(GATE), app.run
    quick = Settings(
        poll=PollPolicy(shortest=0.01, longest=0.05),
        retry_delay=0.01,
        lost_after=patience["lost"],
        poll_patience=patience["nonsense"],
        download_patience=patience["download"],
    )

    def run_quickly(options: app.RunOptions, watcher: app.Watcher) -> app.RunResult:
        changed = replace(options, settings=quick)
        return run(replace(changed, crash=wait_at(Path(gate))) if gate else changed, watcher)

    changes: list[tuple[Any, str, Any]] = [
        (app, "run", run_quickly),
        (
            workbench,
            "connect",
            lambda kind, how, clock, models: ReApi(
                ReApiSettings(how.base_url, how.key, submit_timeout=patience["submit"], poll_timeout=patience["poll"]),
                clock,
                models,
            ),
        ),
        (fetch, "Fetcher", partial(fetch.Fetcher, stall_timeout=patience["stall"], max_bytes=patience["largest"])),
        (control, "UNREACHABLE_AT_START", patience["unreachable"]),
        (control, "UNREACHABLE_LATER", patience["unreachable"]),
    ]
    for place, name, value in changes:
        assert hasattr(place, name), f"{place.__name__} has no {name} any more"
        setattr(place, name, value)


if __name__ == "__main__":
    make_impatient()
    from batchrunner.__main__ import main

    main()
