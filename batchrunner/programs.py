"""Running a program that a user has named: without the keys, in a process group of its own, for a time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .plugins import key_variables


class CantRun(Exception):
    """It could not be started, or ended with another code than 0; the message says which of them."""


async def run(words: Sequence[str], told: bytes, environment: Mapping[str, str], *, listen: bool = False) -> bytes:
    """Run a program to its end. It, and all that it has started, ends with the caller's time for it.

    Args:
        words: the program and its arguments; no shell.
        told: its standard input.
        environment: its environment; the keys are taken out.
        listen: whether what it prints is returned; else that goes to standard error, and nothing is returned.

    Raises:
        CantRun: see there.
    """
    hidden = key_variables()
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if listen else 2,
            env={name: value for name, value in environment.items() if name not in hidden},
            start_new_session=True,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _kill(await starting)  # whoever ends it meanwhile would end the first process, and not the group
        raise
    except (OSError, ValueError) as error:
        raise CantRun(str(getattr(error, "strerror", None) or "not a command line")) from None
    try:
        printed, _, _ = await asyncio.gather(_printed(process), _tell(process, told), process.wait())
    finally:
        await _kill(process)
    if process.returncode:
        raise CantRun(f"ended with {process.returncode}")
    return printed


async def _printed(process: asyncio.subprocess.Process) -> bytes:
    return await process.stdout.read() if process.stdout is not None else b""


async def _tell(process: asyncio.subprocess.Process, told: bytes) -> None:
    """A program need not listen. One that has ended already has closed its end: asyncio calls that a broken pipe, and
    uvloop, before anything is written, a RuntimeError (`communicate` lets the second through)."""
    assert process.stdin is not None  # noqa: S101  it is a pipe
    if told and not process.stdin.is_closing():
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(told)
            await process.stdin.drain()
    process.stdin.close()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a program that goes on, and all that it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
