"""The user's own way to make a file public: a command that uploads it, and prints where it is then."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from .. import programs
from ..core.text import visible
from .ports import NotOffered

UPLOAD = "BATCHRUNNER_UPLOAD"
"""The variable with the command. In the environment, which is the user's, and in no manifest, which may be somebody
else's."""

PATIENCE = 300.0
"""Seconds that an upload may take."""

Offer = Callable[[Path], Awaitable[str]]


def offerer(environment: Mapping[str, str], patience: float = PATIENCE) -> Offer | None:
    """How to offer a file by the command in the environment; None where there is none.

    Raises:
        ValueError: it is no command line.
    """
    text = environment.get(UPLOAD, "")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{UPLOAD} is no command line: {error}") from None
    if not words:
        return None

    async def offer(path: Path) -> str:
        """Run the command with the file's path as its last argument; the last line that it prints is the URL.

        Raises:
            NotOffered: it did not.
        """
        name = visible(words[0], 60)
        try:
            async with asyncio.timeout(patience):
                printed = await programs.run([*words, str(path)], b"", environment, listen=True)
        except programs.CantRun as error:
            raise NotOffered(f"the upload command {name}: {error}") from None
        except TimeoutError:
            raise NotOffered(f"the upload command {name}: not done after {patience:g} s") from None
        lines = printed.decode("utf-8", "replace").split()
        if not lines:
            raise NotOffered(f"the upload command {name} printed no URL")
        return lines[-1]

    return offer
