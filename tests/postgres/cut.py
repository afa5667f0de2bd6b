"""A wire between a ledger and its server that a test can cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum, auto

from batchrunner.ledger.address import Server
from tests.postgres.server import Postgres


class When(Enum):
    """Where the wire is cut, the next time that a COMMIT comes along."""

    BEFORE_COMMIT = auto()
    """The server never sees it."""

    AFTER_COMMIT = auto()
    """The server has done it; its answer is lost."""


class Wire:
    """Forwards 127.0.0.1:port to a server. One thread a direction."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut: When | None = None
        self.down_after = False
        """Whether nobody gets through any more once it was cut."""
        self.down = False
        self.hole = False
        """Whether all that is sent vanishes, with everything still connected. What has lost a byte stays silent."""
        self.cuts = 0
        self.calls = 0
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def address(self, ledger: Server) -> Server:
        return Server(ledger.url.replace(str(self._server.port), str(self.port)), ledger.schema)

    def close(self) -> None:
        _close(self._listener)
        self.sever()

    def sever(self) -> None:
        """Cut everything that is connected now."""
        for end in self._pairs:
            _close(end)
        self._pairs.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.calls += 1
                if self.down:
                    _close(client)
                    continue
                if self.hole:
                    self._pairs.append(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._server.port))
                except OSError:
                    _close(client)
                    continue
                self._pairs += [client, server]
                lost, gone = threading.Event(), threading.Event()
                threading.Thread(target=self._up, args=(client, server, lost, gone), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client, lost, gone), daemon=True).start()

    def _vanishes(self, gone: threading.Event) -> bool:
        if self.hole:
            gone.set()
        return gone.is_set()

    def _up(self, client: socket.socket, server: socket.socket, lost: threading.Event, gone: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._vanishes(gone):
                    continue
                if b"COMMIT\0" in data and self.cut is not None:
                    cut, self.cut = self.cut, None
                    self.cuts += 1
                    self.down = self.down_after
                    if cut is When.BEFORE_COMMIT:
                        break
                    lost.set()
                server.sendall(data)
        if self._vanishes(gone):
            return
        _close(client)
        _close(server)

    def _back(self, server: socket.socket, client: socket.socket, lost: threading.Event, gone: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(1 << 16)) and not lost.is_set():
                if not self._vanishes(gone):
                    client.sendall(data)
        if self._vanishes(gone):
            return  # nobody hears of its end either
        _close(client)
        _close(server)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
