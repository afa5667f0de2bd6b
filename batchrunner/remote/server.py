"""The run's end of the socket: who may call, how much, and how long.

A caller can cost a run a few milliseconds and nothing else. Everything is bounded: the callers at once, the bytes of a
request, the seconds until it is there and until its answer is taken.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from .place import Peer, Place, Unsafe, peer_of, place_of
from .protocol import MAX_LINE, BadRequest, Request, parse, refusal

MAX_CALLERS = 8
"""Requests that are answered at once."""

MAX_WAITING = 32
"""Connections at once; the next one is closed without a word."""

PATIENCE = 5.0
"""Seconds for a request to come, and for each piece of its answer to be taken."""

LAST_WORDS = 10.0
"""Seconds that answers under way get when the run ends."""

PIECE = 1 << 16
"""Bytes of an answer that are handed over at once."""

Answer = Callable[[Request, Peer], Awaitable[bytes]]


class Server:
    """Takes requests beside a ledger. The caller holds the run lock: a socket that stands there is a dead run's."""

    def __init__(self, ledger: Path, answer: Answer) -> None:
        self._ledger = ledger
        self._answer = answer
        self._stack = ExitStack()
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()
        self._busy = 0

    async def open(self) -> str | None:
        """Begin. Returns None, or why no requests are taken: a run goes on without."""
        try:
            place = self._stack.enter_context(place_of(self._ledger))
            listener = self._stack.enter_context(_bind(place))
            self._stack.callback(_remove, place, place.look())
            self._server = await asyncio.start_unix_server(self._called, sock=listener, limit=MAX_LINE)
        except (OSError, Unsafe) as error:
            self._stack.close()
            return (error.strerror if isinstance(error, OSError) else None) or str(error)
        return None

    async def close(self) -> None:
        """Take no more; let the answers under way be given."""
        if self._server is None:
            return
        self._server.close()
        if self._callers:
            await asyncio.wait(self._callers, timeout=LAST_WORDS)
        callers = set(self._callers)
        for caller in callers:
            caller.cancel()
        if callers:
            await asyncio.wait(callers)
        self._stack.close()

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._callers) >= MAX_WAITING:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="caller")
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # `drain` waits until all of it was taken
        try:
            with suppress(OSError, TimeoutError):  # a caller who has gone, or takes for ever
                line = await self._answered(reader, writer)
                for start in range(0, len(line), PIECE):
                    writer.write(line[start : start + PIECE])
                    async with asyncio.timeout(PATIENCE):
                        await writer.drain()
                writer.write_eof()
        finally:
            writer.transport.abort() if _stuck(writer) else writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The answer. It is given when the request was read: a unix socket that is closed before throws both away."""
        try:
            async with asyncio.timeout(PATIENCE):
                line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            return refusal(f"the request is longer than {MAX_LINE} bytes")
        except asyncio.IncompleteReadError as cut:
            line = cut.partial
        except TimeoutError:
            return refusal(f"no request came within {PATIENCE:.0f} s")
        peer = peer_of(writer.get_extra_info("socket"))
        if not peer.trusted:
            return refusal("only the user who started the run may ask")
        if self._busy >= MAX_CALLERS:
            return refusal("too many ask at once; try again")
        return await self._considered(line, peer)

    async def _considered(self, line: bytes, peer: Peer) -> bytes:
        self._busy += 1
        try:
            return await self._answer(parse(line), peer)
        except BadRequest as bad:
            return refusal(str(bad))
        finally:
            self._busy -= 1


def _stuck(writer: asyncio.StreamWriter) -> bool:
    """Whether the caller has not taken what was written: `close` would wait for that for ever."""
    return writer.transport.get_write_buffer_size() > 0


def _bind(place: Place) -> socket.socket:
    """A listening socket of mode 0600, in the place of a dead run's.

    Raises:
        Unsafe: something else stands there. OSError: it can't be made.
    """
    place.remove()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # Linux makes the file with the socket's own mode, so that it is never open to others; elsewhere chmod does it.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(place.address)
        os.chmod(place.name, 0o600, dir_fd=place.folder)
        listener.listen(MAX_CALLERS)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove(place: Place, ours: os.stat_result | None) -> None:
    with suppress(OSError, Unsafe):
        if ours is not None:
            place.remove(ours)
