"""The double, with accounts that can be put back: what follows a death is played from one memory of it, again and
again, without playing what led to it.

Run as `python -m tests.crash.provider`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import pickle
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.double import Double, _answer, _Server

SETTLING = 10
"""Rounds of the loop after which everything that a dead process had sent has been read."""


class _Rewinding(_Server):
    def __init__(self) -> None:
        super().__init__()
        self._saved: dict[str, bytes] = {}
        self._busy: Counter[str] = Counter()

    async def _route(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        name = headers.get("authorization", "").rpartition("rk_")[2]
        self._busy[name] += 1
        try:
            return await super()._route(method, target, headers, body)
        finally:
            self._busy[name] -= 1

    async def _control(self, verb: str, scenario: str, body: bytes) -> bytes:
        if verb == "restore":
            opened = self._accounts[scenario]
            opened.account, opened.connections = pickle.loads(self._saved[scenario])
            return _answer(200, None)
        if verb in {"save", "account"}:
            await self._settled(scenario)
        if verb == "save":
            opened = self._accounts[scenario]
            self._saved[scenario] = pickle.dumps((opened.account, opened.connections))
            return _answer(200, None)
        if verb == "close":
            self._saved.pop(scenario, None)
            self._busy.pop(scenario, None)
        return await super()._control(verb, scenario, body)

    async def _settled(self, scenario: str) -> None:
        """Wait until what the dead had sent is read and answered."""
        rounds = 0
        while rounds < SETTLING:
            await asyncio.sleep(0.001 if self._busy[scenario] else 0)
            rounds = 0 if self._busy[scenario] else rounds + 1


class Rewinding(Double):
    """The double as the enumeration drives it."""

    def __init__(self, port: int, process: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__(port, process)
        self._socket: socket.socket | None = None
        self._stream: io.BufferedReader

    @classmethod
    def start(cls) -> Rewinding:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.provider"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert process.stdout is not None
        return cls(int(process.stdout.readline()), process)

    def _call(self, verb: str, scenario: str, body: Any = None) -> dict[str, Any]:
        """As the parent does, in a tenth of the time: the enumeration asks twice for every run."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            self._stream = self._socket.makefile("rb")
        data = json.dumps(body).encode()
        self._socket.sendall(
            b"POST /_double/%s/%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
            % (verb.encode(), scenario.encode(), len(data))
            + data
        )
        length = 0
        while (line := self._stream.readline()) != b"\r\n":
            if line.startswith(b"Content-Length:"):
                length = int(line[15:])
        answer: dict[str, Any] = json.loads(self._stream.read(length))
        return answer

    def stop(self) -> None:
        if self._socket is not None:
            self._stream.close()
            self._socket.close()
        super().stop()

    def save(self, scenario: str) -> None:
        """Remember the account as it is."""
        self._call("save", scenario)

    def restore(self, scenario: str) -> None:
        """Put it back as it was remembered."""
        self._call("restore", scenario)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Rewinding().run())
