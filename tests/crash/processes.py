"""Processes that are expected to die: forks them, hears them, and says how they ended."""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

from batchrunner.exits import EXIT_BUG
from tests.crash.child import LENGTH, TOLD, Order, serve
from tests.crash.scenarios import CODES, POINTS, THAWED

RUN_SECONDS = 120.0
"""A run that takes longer hangs."""


@dataclass(slots=True)
class Ran:
    """How a run ended.

    Attributes:
        killed: it died where it should, at once.
        missed: it should have died or been stopped, and never came there, or was done by then.
        cut: a signal ended it before it had recovered: it may leave what a death leaves.
        fired: where it died, or was told to stop.
        passed: the points that it passed, in order.
        code: exit code; -1 for a run that died.
        stop: why it stopped early; the traceback of a bug.
    """

    killed: bool = False
    missed: bool = False
    cut: bool = False
    fired: str = ""
    passed: tuple[str, ...] = ()
    code: int = -1
    stop: str | None = None
    seconds: float = 0.0

    @property
    def broke(self) -> bool:
        """It ended as no run may."""
        return self.code == EXIT_BUG or (self.code == -1 and not self.killed)


Steps = Generator[Order, Ran, None]


class _Worker:
    """A process that plays runs until one of them is its last."""

    def __init__(self, others: set[int]) -> None:
        orders, self.orders = os.pipe()
        self.pipe, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for descriptor in (*others, self.orders, self.pipe):
                    os.close(descriptor)
                serve(orders, told)
            finally:
                os._exit(0)
        os.close(orders)
        os.close(told)

    def send(self, order: Order) -> None:
        data = pickle.dumps(order)
        os.write(self.orders, len(data).to_bytes(LENGTH) + data)

    def reap(self) -> int:
        """Its status, once nothing more will come from it."""
        os.close(self.orders)
        os.close(self.pipe)
        return os.waitpid(self.pid, 0)[1]


class _Slot:
    """One of the places where something is played: some steps, and the worker that plays them."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.worker: _Worker | None = None
        self.order: Order | None = None
        self.heard = b""
        self.began = 0.0
        self.hung = False


class Pool:
    """Plays steps, a few of them abreast, each of their runs in a process."""

    def __init__(self, abreast: int) -> None:
        self.waiting: deque[Steps] = deque()
        self._abreast = abreast
        self._slots: set[_Slot] = set()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Play everything that waits, and what is added meanwhile."""
        while True:
            while len(self._slots) < self._abreast and self.waiting:
                slot = _Slot(self.waiting.popleft())
                self._slots.add(slot)
                self._advance(slot, None)
            if not self._slots:
                break
            for key, _ in self._selector.select(1.0):
                self._hear(key.data)
            for slot in list(self._slots):
                if time.perf_counter() - slot.began > RUN_SECONDS and slot.worker is not None:
                    slot.hung = True
                    os.kill(slot.worker.pid, signal.SIGKILL)
        for worker in self._idle:
            self._retire(worker)
        self._idle = []

    def _advance(self, slot: _Slot, ran: Ran | None) -> None:
        """The next run, or the end of the steps."""
        try:
            slot.order = next(slot.steps) if ran is None else slot.steps.send(ran)
        except StopIteration:
            self._slots.discard(slot)
            return
        slot.worker = self._idle.pop() if self._idle else self._hire()
        slot.heard, slot.began = b"", time.perf_counter()
        self._selector.register(slot.worker.pipe, selectors.EVENT_READ, slot)
        slot.worker.send(slot.order)

    def _hear(self, slot: _Slot) -> None:
        assert slot.worker is not None
        assert slot.order is not None
        data = os.read(slot.worker.pipe, 65536)
        slot.heard += data
        passed, told, words = slot.heard.partition(bytes([TOLD]))
        length = int.from_bytes(words[:LENGTH])
        if data and not (told and len(words) >= LENGTH + length):
            return
        worker, slot.worker = slot.worker, None
        self._selector.unregister(worker.pipe)
        ran = Ran(passed=tuple(POINTS[b] for b in passed), seconds=time.perf_counter() - slot.began)
        if told:
            self._settle(ran, slot.order, json.loads(words[LENGTH:]))
        death = slot.order.death
        if told and not ran.cut and not (death and death.lingers) and ran.code != EXIT_BUG:
            self._idle.append(worker)
        else:
            status = self._retire(worker)
            if not told:
                self._autopsy(ran, slot, status)
        self._advance(slot, ran)

    @staticmethod
    def _settle(ran: Ran, order: Order, told: dict[str, object]) -> None:
        """It has ended by itself."""
        ran.code, ran.cut = int(str(told["code"])), bool(told.get("cut"))
        ran.stop = None if told["stop"] is None else str(told["stop"])
        death = order.death
        if death is None:
            return
        ran.missed = ran.code != CODES.get(death.by) and death.by is not THAWED
        ran.fired = "" if ran.missed else death.point

    @staticmethod
    def _autopsy(ran: Ran, slot: _Slot, status: int) -> None:
        """It is dead."""
        death = slot.order.death if slot.order is not None else None
        deadly = os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGKILL, signal.SIGALRM}
        at_once = death is not None and death.twice and os.waitstatus_to_exitcode(status) == CODES[death.by]
        if death is not None and (deadly or at_once) and not slot.hung:
            ran.killed, ran.fired = True, death.point
        else:
            ran.stop = f"hung after {ran.passed[-3:]}" if slot.hung else f"status {status} after {ran.passed[-3:]}"

    def _hire(self) -> _Worker:
        worker = _Worker({w.orders for w in self._workers})
        self._workers.add(worker)
        return worker

    def _retire(self, worker: _Worker) -> int:
        self._workers.discard(worker)
        return worker.reap()
