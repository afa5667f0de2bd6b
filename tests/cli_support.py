"""Calling the command line from a test: in this process, and ledgers for it to read."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from batchrunner.cli import errors
from batchrunner.core import events as e
from batchrunner.core.job import JobSpec, State
from batchrunner.ledger.address import Address
from batchrunner.manifest import load
from tests.support import FakeClock, batch, drive, jobs_of, open_ledger, path_to

MANIFEST = """\
version: 1
batch: night
defaults: {model: kling-3-0-turbo, duration: 5}
shots:
  - {id: dog, prompt: a dog, takes: 2, tags: [hero]}
  - {id: cat, prompt: a cat}
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: str | Path) -> Ran:
    """Run the command line in this process, with its own stdout and stderr (no terminal)."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    words = [str(a) for a in arguments]
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", ["batchrunner", *words]):
        code = errors.main(words)
    return Ran(code, *(s.buffer.getvalue().decode() for s in (out, err)))


PATIENCE = 120.0
"""Seconds after which a process that should have ended hangs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended that printed JSON lines."""

    code: int
    events: list[dict[str, Any]]
    err: str

    def told(self, event: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [told for told in self.events if told["event"] == event]


async def run_json(
    folder: Path, *arguments: str, module: str = "batchrunner", environment: Mapping[str, str] | None = None
) -> Ended:
    """`python -m MODULE ARGUMENTS --json` in a process of its own with `folder` as its current folder, while the
    test's event loop goes on. Nothing of the caller's own key, server or ledger is handed on."""
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments, "--json"),
        cwd=folder,
        env={**ours, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, [json.loads(line) for line in out.splitlines()], err.decode())


def make_ledger(
    path: Address, jobs: Sequence[tuple[JobSpec, Sequence[e.Event]]], *, clock: FakeClock | None = None, **of_batch: Any
) -> None:
    """Record a batch in the ledger at `path`, and let events happen to its jobs. May be called again to record anew:
    events are for the revision that the spec asks for."""

    async def make() -> None:
        async with open_ledger(path, clock or FakeClock()) as ledger:
            batch_id = await ledger.record(batch(**of_batch), [spec for spec, _ in jobs])
            await ledger.batches()
            known = {(j.key, json.dumps(j.request, sort_keys=True)): j for j in await jobs_of(ledger, batch_id)}
            for spec, events in jobs:
                await drive(ledger, known[spec.key, json.dumps(spec.request, sort_keys=True)], *events)

    asyncio.run(make())


def record_manifest(manifest: Path, **states: State) -> None:
    """Record a manifest in the ledger beside it, and bring jobs (`key with _`) into a state."""
    found = [
        (spec, path_to(states.get(spec.key.replace("-", "_"), State.PENDING), f"task_{n}"))
        for n, spec in enumerate(load(manifest).jobs)
    ]
    make_ledger(manifest.with_name("batchrunner.db"), found)
