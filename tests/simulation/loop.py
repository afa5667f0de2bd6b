"""An event loop on virtual time, with a network in memory. Nothing here waits, and nothing reads a clock.

`Timeline` is the world's time: it outlives every run. `SimLoop` is one run's loop: it executes what is ready, and when
nothing is it jumps to whatever comes next, its own timers or the world's events. A run that dies is a `Life` that is
`dead`: its loop stops between two steps, its coroutines are unwound while nothing they do has an effect, and the next
run gets a loop of its own on the same timeline.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
import socket
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVarTuple

Ts = TypeVarTuple("Ts")

TICK = 1e-6
"""Seconds that one round of the loop takes: time always moves, as it does outside."""

MAX_ROUNDS = 100_000
"""Rounds of the loop within one virtual second before it counts as a livelock."""


class Died(BaseException):
    """The process is dead. Not an Exception: the code under test must not be able to handle it."""


class Stuck(BaseException):
    """A run that would never end."""


class Timeline:
    """Virtual time, and what happens in the world at its own pace."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time; calls for one time happen in the order of their asking."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._order), call, arguments))

    @property
    def next(self) -> float:
        """When the next thing happens; infinite where nothing will."""
        return self._heap[0][0] if self._heap else float("inf")

    def run_due(self) -> None:
        while self._heap and self._heap[0][0] <= self.now:
            _, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)

    def advance(self, seconds: float) -> None:
        """Let time pass while nobody runs."""
        until = self.now + seconds
        while self.next <= until:
            self.now = self.next
            self.run_due()
        self.now = until


class Life:
    """One run of the program, from its start to its end or its death."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.dead = False

    def die(self) -> None:
        """The process is gone: from here on nothing that it does has an effect."""
        self.dead = True
        raise Died


class Server(Protocol):
    """The other end of a connection."""

    def data_received(self, data: bytes) -> None: ...
    def lost(self) -> None: ...


class Host(Protocol):
    """Who answers names and connections; draws their latencies and faults."""

    rng: random.Random

    def resolve(self, name: str) -> tuple[float, list[str] | None]:
        """Seconds it takes, and the addresses; None for a failure."""
        ...

    def connect(self, address: str) -> tuple[float, OSError | None]:
        """Seconds it takes (infinite: never answered), and how it fails, if it does."""
        ...

    def handshake(self, address: str) -> tuple[float, OSError | None]: ...

    def serve(self, link: Link, address: str) -> Server:
        """Somebody to talk to."""
        ...

    def began(self, what: str) -> None:
        """The program has started a call of its own: `submit KEY` or `poll KEY`."""
        ...


class Link:
    """A connection. What was written arrives in order, late, and also when its writer is dead."""

    def __init__(self, timeline: Timeline, latency: float, life: Life) -> None:
        self._timeline = timeline
        self._latency = latency
        self._up_at = self._down_at = 0.0
        self.life = life
        self.client: ClientEnd | None = None
        self.server: Server | None = None
        self.hung_up = False
        """The client has closed its end; known here at once, to the server later."""
        self._server_gone = False

    def up(self, data: bytes) -> None:
        """Bytes from the client."""
        self._up_at = max(self._up_at, self._timeline.now + self._latency)
        self._timeline.at(self._up_at, self._arrive, data)

    def hang_up(self) -> None:
        """The client closes, or has died."""
        if not self.hung_up:
            self.hung_up = True
            self._up_at = max(self._up_at, self._timeline.now + self._latency)
            self._timeline.at(self._up_at, self._lost)

    def _arrive(self, data: bytes) -> None:
        if not self._server_gone and self.server is not None:
            self.server.data_received(data)

    def _lost(self) -> None:
        if not self._server_gone and self.server is not None:
            self._server_gone = True
            self.server.lost()

    def down(self, data: bytes, after: float = 0.0, then: Callable[[], None] | None = None) -> None:
        """Bytes from the server, sent after a while; `then` is called when a living client has them."""
        self._later(after, self._deliver, data, then)

    def finish(self, after: float = 0.0) -> None:
        """The server closes in good order."""
        self._later(after, self._end, None)

    def reset(self, after: float = 0.0) -> None:
        """The server resets."""
        self._later(after, self._end, ConnectionResetError(104, "Connection reset by peer"))

    def _later(self, after: float, call: Callable[..., None], *arguments: Any) -> None:
        self._down_at = max(self._down_at, self._timeline.now + after + self._latency)
        self._timeline.at(self._down_at, call, *arguments)

    def _deliver(self, data: bytes, then: Callable[[], None] | None) -> None:
        if self.client is not None and self.client.open:
            self.client.feed(data)
            if then is not None:
                then()

    def _end(self, error: OSError | None) -> None:
        self._server_gone = True
        if self.client is not None and self.client.open:
            self.client.end(error)


class ClientEnd(asyncio.Transport):
    """What aiohttp writes to. Also stands for a TLS connection: what is inside is what matters."""

    def __init__(self, loop: SimLoop, protocol: asyncio.Protocol, link: Link, address: str) -> None:
        super().__init__({"peername": (address, 443)})
        self._loop = loop
        self._protocol: asyncio.Protocol = protocol
        self._link = link
        self._closed = False
        self._paused = False
        self._held: deque[bytes] = deque()
        self._ended: tuple[OSError | None] | None = None

    @property
    def open(self) -> bool:
        return not self._closed and not self._loop.life.dead

    # --- What comes --------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if self._paused or self._held:
            self._held.append(data)
        else:
            self._loop.call_soon(self._give, data)

    def _give(self, data: bytes) -> None:
        if not self._closed:
            self._protocol.data_received(data)

    def end(self, error: OSError | None) -> None:
        if self._held:
            self._ended = (error,)
        else:
            self._loop.call_soon(self._gone, error)

    def _gone(self, error: OSError | None) -> None:
        if self._closed:
            return
        if error is None:
            self._protocol.eof_received()
        self._close(error)

    # --- asyncio.Transport -------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self.open:
            self._link.up(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._close(None)

    def abort(self) -> None:
        self._close(None)

    def _close(self, error: OSError | None) -> None:
        if self.open:
            self._closed = True
            self._link.hang_up()
            self._loop.links.pop(self._link, None)
            self._loop.call_soon(self._protocol.connection_lost, error)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_reading(self) -> bool:
        return not self._paused

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        while self._held and not self._paused:
            self._give(self._held.popleft())
        if not self._held and self._ended is not None:
            self._gone(*self._ended)


class _Numbered:
    """A hash that is the same in every process: sets of futures and tasks are walked in one order."""

    number: int

    def __hash__(self) -> int:
        return self.number


class SimFuture(_Numbered, asyncio.Future[Any]):
    pass


class SimTask(_Numbered, asyncio.Task[Any]):
    def __init__(
        self,
        number: int,
        coroutine: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        self.number = number
        super().__init__(coroutine, loop=loop, name=name, context=context)


class SimHandle(asyncio.Handle):
    """A call that is due, made without asking whether anybody debugs: a night makes millions."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = arguments
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class SimTimer(SimHandle, asyncio.TimerHandle):
    """The same for later. Cancelled ones stay where they are until their time has come."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(callback, arguments, loop, context)
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class SimLoop(base_events.BaseEventLoop):
    """One life's event loop."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _closed: bool

    def __init__(self, timeline: Timeline, host: Host, life: Life, *, patience: float) -> None:
        """Args:
        timeline: the world's.
        host: the network.
        life: ends this loop when it is dead.
        patience: virtual seconds after which a run that is not over counts as stuck.
        """
        super().__init__()
        self.life = life
        self.complaints: list[str] = []
        self.signals: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.links: dict[Link, None] = {}
        self.tasks: dict[SimTask, None] = {}
        self._timeline = timeline
        self._host = host
        self._numbers = itertools.count(1)
        self._until = timeline.now + patience
        self._rounds = 0
        self._second = timeline.now
        self._addresses: dict[socket.socket, str] = {}

    # --- Time --------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._timeline.now

    def _run_once(self) -> None:
        timeline, ready, scheduled = self._timeline, self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
            then = min(scheduled[0].when() if scheduled else float("inf"), timeline.next)
            if then > self._until:
                raise Stuck(f"no end after {self._until - timeline.now:.0f} s more: the next thing is at {then}")
            timeline.now = max(timeline.now, then)
        if timeline.next <= timeline.now:
            timeline.run_due()
        self._check()
        now, life = timeline.now, self.life
        while scheduled and scheduled[0].when() <= now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
                if life.dead:
                    raise Died
        timeline.now += TICK

    def _check(self) -> None:
        self._rounds += 1
        if self._timeline.now - self._second > 1.0:
            self._second, self._rounds = self._timeline.now, 0
        elif self._rounds > MAX_ROUNDS:
            raise Stuck("it turns and turns while no time passes")
        if self._timeline.now > self._until:
            raise Stuck("it does not end")

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = SimHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = SimTimer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        return timer

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._timeline.now + delay, callback, *args, context=context)

    def _write_to_self(self) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.life.dead and not self.is_closed():
            self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- The same in every process -----------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        future = SimFuture(loop=self)
        future.number = next(self._numbers)
        return future

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        label = None if name is None else str(name)
        if label is not None and not self.life.dead:
            self._host.began(label)
        task = SimTask(next(self._numbers), coro, loop=self, name=label, context=context)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
        return task

    # --- Threads, names, connections, signals ------------------------------------------------------------

    def _soon(self, future: asyncio.Future[Any], result: Any, error: BaseException | None = None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """In line, after a while. A thread that has begun goes on when nobody waits any more; one that has not is
        taken back."""
        future = self.create_future()
        begun = self._host.rng.random() < 0.5

        def work() -> None:
            if future.cancelled() and not begun:
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  a thread hands it over
                self._soon(future, None, error)
            else:
                self._soon(future, result)

        self.call_later(self._host.rng.random() * 0.004, work)
        return future

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        seconds, addresses = self._host.resolve(str(host))
        await self._pause(seconds)
        if addresses is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, int(port))) for a in addresses]

    async def _pause(self, seconds: float) -> None:
        future = self.create_future()
        if seconds != float("inf"):
            self.call_later(seconds, self._soon, future, None)
        await future

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        seconds, error = self._host.connect(address[0])
        await self._pause(seconds)
        if error is not None:
            raise error
        self._addresses[sock] = address[0]

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *_: Any, sock: socket.socket, **__: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        address = self._addresses.pop(sock)
        sock.close()
        seconds, error = self._host.handshake(address)
        await self._pause(seconds)
        if error is not None:
            raise error
        link = Link(self._timeline, self._host.rng.uniform(0.001, 0.06), self.life)
        protocol = protocol_factory()
        transport = ClientEnd(self, protocol, link, address)
        link.client, link.server = transport, self._host.serve(link, address)
        self.links[link] = None
        protocol.connection_made(transport)
        return transport, protocol

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        self.signals[sig] = (callback, args)

    # --- The end -----------------------------------------------------------------------------------------

    def bury(self) -> None:
        """The process has died: unwind every coroutine while nothing has an effect, and let go of everything."""
        assert self.life.dead
        for link in list(self.links):
            link.hang_up()
        asyncio._set_running_loop(self)  # what a coroutine still starts on its way out is started here, for nothing
        try:
            self._unwind()
        finally:
            asyncio._set_running_loop(None)
        self.close()

    def _unwind(self) -> None:
        while self.tasks:
            task, _ = self.tasks.popitem()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            for _ in range(20):
                try:
                    coroutine.close()
                except BaseException:  # noqa: BLE001  a dead process says nothing
                    continue
                break
