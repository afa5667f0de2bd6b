"""The simulator as a server: start, stop, account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from .faults import Fault
from .media import MediaShelf
from .routes import Routes, is_loopback
from .settings import SimulatorSettings
from .store import Store
from .world import World

MAX_BODY = 1 << 20
"""Longest request body, bytes."""

SHUTDOWN_SECONDS = 1.0
"""How long `stop` waits for answers that are being written."""


class Simulator:
    """A local server that speaks reAPI's HTTP and keeps its own account.

    `async with Simulator(settings) as simulator:` starts it on a port of 127.0.0.1; `simulator.url` is what
    `REAPI_BASE_URL` wants. With a state file it comes back on the same port where that is free, so that the output
    URLs and the origin that a ledger has recorded stay right.
    """

    def __init__(self, settings: SimulatorSettings | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            settings: see `SimulatorSettings`.
            clock: unix seconds; tests hand in their own.
        """
        self.settings = settings or SimulatorSettings()
        self.url = ""
        self._clock = clock
        self._world: World | None = None
        self._shelf: MediaShelf | None = None
        self._runner: web.AppRunner | None = None
        self._last_account: dict[str, Any] = {}

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Open the state and listen.

        Args:
            host: a loopback address, or `localhost`.
            port: 0 for the port of last time (see the class), or else a free one.

        Returns:
            The base URL, without `/api/v1`.

        Raises:
            ValueError: the host is not loopback, or the state file is not one.
            OSError: the port is taken, or the state file can't be opened.
            RuntimeError: it is running already.
        """
        if not is_loopback(host):
            raise ValueError(f"the simulator listens on loopback only, not on {host!r}")
        if self._world is not None:
            raise RuntimeError("the simulator is running already")
        store = Store(self.settings.state)
        self._world = World(self.settings, store, self._clock)
        self._shelf = MediaShelf(rendered=self.settings.clips == "rendered", models=self._world.models)
        routes = Routes(self._world, self._shelf)
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes(routes.table())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
        try:
            await self._runner.setup()
            bound = await self._listen(self._runner, host, port, int(store.meta("port") or 0))
            store.set_meta("port", str(bound))
        except BaseException:
            await self.stop()
            raise
        shown = f"[{host}]" if ":" in host else host
        self.url = routes.url = f"http://{shown}:{bound}"
        return self.url

    @staticmethod
    async def _listen(runner: web.AppRunner, host: str, port: int, last: int) -> int:
        """Listen on `port`, or where that is 0 on `last`, or where that is taken on a free one."""
        try:
            await web.TCPSite(runner, host, port or last).start()
        except OSError:
            if port or not last:
                raise
            await web.TCPSite(runner, host, 0).start()
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close every connection and the state; `account` keeps answering with the last figures."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            await asyncio.to_thread(shelf.close)
        world, self._world = self._world, None
        if world is not None:
            self._last_account = world.account()
            world.store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def account(self) -> dict[str, Any]:
        """What was accepted, charged, refunded and served, as `GET /_simulator/account` shows it.

        Keys: accepted, charged, refunded, balance, posts, polls, downloads, rejected (400), refused (401, 402),
        throttled (429), users, and tasks, a list of {id, number, label, model, request_sha256 (of the body as
        received), prompt, uses (ids of the tasks whose outputs the request names), credits, status, error, created_at,
        due_at, refunded, polls, downloads}.
        """
        return self._last_account if self._world is None else self._world.account()

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        """Switch all faults off, then these on.

        Raises:
            RuntimeError: it is not running.
        """
        if self._world is None:
            raise RuntimeError("the simulator is not running")
        self._world.faults.replace(faults)
