"""Programs that a user has named, and that need not listen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from batchrunner import programs

TOLD = b"what there is to tell " * 50_000
"""More than a pipe takes at once."""

LOOPS = pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Loop = Callable[[Coroutine[Any, Any, bytes]], bytes]


@LOOPS
@pytest.mark.parametrize("told", [b"", b"a word", TOLD], ids=["nothing", "a word", "much"])
def test_one_that_has_ended_before_it_is_told(loop: Loop, told: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec

    async def ended(*words: Any, **how: Any) -> asyncio.subprocess.Process:
        process = await start(*words, **how)
        await process.wait()
        assert process.stdin is not None
        while not process.stdin.is_closing():  # the loop has seen that nobody listens any more
            await asyncio.sleep(0.001)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", ended)
    assert loop(programs.run(["echo", "done"], told, os.environ, listen=True)) == b"done\n"


@LOOPS
def test_one_that_stops_listening(loop: Loop) -> None:
    assert loop(programs.run(["head", "-c", "4"], TOLD, os.environ, listen=True)) == b"what"


@LOOPS
def test_one_that_hears_it_out(loop: Loop) -> None:
    assert loop(programs.run(["cat"], TOLD, os.environ, listen=True)) == TOLD
