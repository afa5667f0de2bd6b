"""Asking a run that is alive. Without an event loop: a verb that asks costs no more than a socket."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from ..exits import UsageError
from ..ledger.address import Address
from ..ledger.connection import beside, exists, holder
from .place import Unsafe, peer_of, place_of
from .protocol import MAX_ANSWER, BadRequest, Request, encode, patience

CONNECT_PATIENCE = 5.0
"""Seconds to wait for the run to take the call."""


class NoRun(UsageError):
    """Nobody listens beside the ledger."""


def ask(ledger: Address, request: Request) -> dict[str, Any]:
    """Send a request to the run that is alive on a ledger, and return its answer.

    Raises:
        NoRun: there is none, or it takes no requests.
        UsageError: the run refuses, with the reason; what stands in the socket's place is another's; or no answer came.
    """
    try:
        line = encode(request)
    except BadRequest as bad:
        raise UsageError(str(bad)) from None
    try:
        answer = _exchange(ledger, line, patience(request))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoRun(_nobody(ledger)) from None
    except Unsafe as unsafe:
        raise UsageError(f"{unsafe}; nothing was asked") from None
    except TimeoutError:
        raise UsageError(
            "the run did not answer in time, and may still do what was asked; `batchrunner status` shows it"
        ) from None
    except OSError as error:
        raise UsageError(f"the run could not be asked: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise UsageError("the run ended before it had answered; `batchrunner status` shows how") from None
    if answer.get("ok") is not True:
        raise UsageError(str(answer.get("error", "the run refused")))
    return answer


def _exchange(ledger: Address, line: bytes, wait: float) -> dict[str, Any]:
    there = beside(ledger)
    if there is None:
        raise FileNotFoundError
    with place_of(there) as place, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        if place.look() is None:
            raise FileNotFoundError
        connection.settimeout(CONNECT_PATIENCE)
        connection.connect(place.address)
        if not peer_of(connection).trusted:
            raise Unsafe(f"another user listens at {place.path}")
        connection.sendall(line)
        connection.settimeout(wait)
        found: dict[str, Any] = json.loads(_read(connection))
        return found


def _read(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size <= MAX_ANSWER:
        part = connection.recv(1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _nobody(ledger: Address) -> str:
    if not (os.path.lexists(ledger) if isinstance(ledger, Path) else exists(ledger)):
        return f"no ledger at {ledger}; name it with --db"
    who = holder(ledger)
    if who and isinstance(ledger, Path):
        return (
            f"{who} holds {ledger} and takes no requests: it is starting or ending, or is not a run; "
            "try again in a moment"
        )
    if who:
        return (
            f"{who} holds {ledger} and takes no requests here: it runs on another machine or as another user, is "
            "starting or ending, or is not a run"
        )
    return f"no run is alive on {ledger}; `batchrunner run MANIFEST` starts one"
