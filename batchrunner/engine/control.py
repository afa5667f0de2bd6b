"""What every part of a run shares: why it stops, the hold of a 429, the breaker, the slots in flight."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import StrEnum

from ..core.pacing import backoff, clamp_retry_after
from ..ledger.errors import LedgerUnusable
from .clock import Clock, Dice


class Stop(StrEnum):
    """Why a run stops submitting, or stops at all, before everything is done."""

    LIMIT = "limit"
    BUDGET = "budget"
    CREDIT = "out of credit"
    DEADLINE = "deadline"
    BREAKER = "circuit breaker"
    NEEDS = "needs"
    """What is left waits for jobs that did not succeed, or for outputs that can't be had."""
    DISK = "disk"
    LEDGER = "ledger"
    CREDENTIALS = "credentials refused"
    UNREACHABLE = "unreachable"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"


AT_ONCE = frozenset({Stop.CREDENTIALS, Stop.UNREACHABLE, Stop.INTERRUPTED, Stop.TERMINATED})
"""Reasons that also end polling and downloading; the others let what was paid for come home."""

MAX_REJECTED_IN_A_ROW = 5
MAX_AMBIGUOUS_IN_A_ROW = 3
"""The breaker's limits (FAILURES.md, Retries)."""

OF_ONE_ACCOUNT = frozenset({Stop.CREDENTIALS, Stop.UNREACHABLE, Stop.CREDIT, Stop.BREAKER, Stop.DEADLINE})
"""Reasons that concern one provider's account, where a run has several; the others concern the run."""

UNREACHABLE_AT_START = 60.0
"""Seconds without any connection at the start before the run gives up (CONTRACT.md)."""

UNREACHABLE_LATER = 900.0
"""The same once something has answered: a night's network has holes, a run must end all the same."""


class Signal:
    """Wakes everybody who waits. Check, then wait, with no await between: then nothing is missed."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def wait(self, seconds: float | None = None) -> None:
        """Return at the next `notify`, or after `seconds` (None or infinite: no limit)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.add(future)
        timer = None if seconds is None or seconds == math.inf else loop.call_later(seconds, self.notify)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if timer is not None:
                timer.cancel()


class _Account:
    """What one account's answers do to everybody who calls it: the hold of a 429, the breaker, silence."""

    def __init__(self, clock: Clock, dice: Dice, hold_for: float) -> None:
        self._clock = clock
        self._dice = dice
        self._held_until = clock.monotonic() + hold_for
        self._throttles = 0
        self._rejected = 0
        self._ambiguous = 0
        self._answered = False
        self._silent_since: float | None = None
        self._silent_tries = 0
        self._quiet_until = 0.0

    def _afresh(self) -> None:
        """Nothing counts against the account any more."""
        self._rejected = self._ambiguous = self._silent_tries = 0
        self._silent_since = None
        self._quiet_until = 0.0

    def halt(self, reason: Stop, message: str) -> None:
        """Stop submitting; for a reason in `AT_ONCE` stop everything."""
        raise NotImplementedError

    # --- The hold of a 429 -------------------------------------------------------------------------------

    def throttled(self, retry_after: float | None) -> float:
        """Hold every call; returns for how many seconds."""
        now = self._clock.monotonic()
        if now >= self._held_until:
            self._throttles += 1  # answers to calls that were on the wire when the hold began say nothing new
        wait = clamp_retry_after(retry_after, backoff(self._throttles or 1, self._dice()))
        self._held_until = max(self._held_until, now + wait)
        return self._held_until - now

    def held(self, seconds: float) -> None:
        """Somebody else who uses the account was told to wait: so do we."""
        self._held_until = max(self._held_until, self._clock.monotonic() + seconds)

    def hold(self) -> float:
        """Seconds until calls may be made again; 0 for now."""
        return max(0.0, self._held_until - self._clock.monotonic())

    # --- The breaker -------------------------------------------------------------------------------------

    def accepted(self) -> None:
        """A submission was accepted: everything that counts failures in a row starts anew."""
        self._rejected = self._ambiguous = self._throttles = 0

    def rejected(self) -> None:
        """A submission was refused for what it asks."""
        self._ambiguous = 0
        self._rejected += 1
        if self._rejected >= MAX_REJECTED_IN_A_ROW:
            self.halt(Stop.BREAKER, f"{self._rejected} submissions in a row were rejected")

    def ambiguous(self) -> None:
        """Nobody can tell whether a submission was accepted."""
        self._ambiguous += 1
        self._rejected += 1
        if self._ambiguous >= MAX_AMBIGUOUS_IN_A_ROW:
            self.halt(Stop.BREAKER, f"{self._ambiguous} submissions in a row may or may not have been accepted")
        elif self._rejected >= MAX_REJECTED_IN_A_ROW:
            self.halt(Stop.BREAKER, f"{self._rejected} submissions in a row failed")

    # --- Whether anybody is there ------------------------------------------------------------------------

    def heard(self) -> None:
        """The provider answered something, whatever it was."""
        self._answered = True
        self._silent_since = None
        self._silent_tries = 0
        self._quiet_until = 0.0

    def silent(self, message: str) -> None:
        """A call got no answer at all. Holds new submissions for a growing while, and gives up after long enough."""
        now = self._clock.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        if now >= self._quiet_until:
            self._silent_tries += 1
            self._quiet_until = now + backoff(self._silent_tries, self._dice(), cap=15.0)
        patience = UNREACHABLE_LATER if self._answered else UNREACHABLE_AT_START
        if now - self._silent_since >= patience:
            self.halt(Stop.UNREACHABLE, f"no answer for {now - self._silent_since:.0f} s: {message}")

    def quiet(self) -> float:
        """Seconds until a new submission may be tried after calls without an answer; 0 for now."""
        return max(0.0, self._quiet_until - self._clock.monotonic())


class Control(_Account):
    """The switches of one run. Not thread-safe: everything lives on one event loop."""

    def __init__(self, clock: Clock, dice: Dice, on_stop: Callable[[Stop, str], None], hold_for: float = 0.0) -> None:
        super().__init__(clock, dice, hold_for)
        self._on_stop = on_stop
        self._signals: list[Signal] = []
        self._branches: list[Branch] = []
        self.ended = False
        """Whether the run ends at once, whatever is in flight."""
        self.error: BaseException | None = None
        self.stop: Stop | None = None
        self.stop_message = ""
        self.paused_by = ""
        """Who has asked to submit nothing for now; empty for nobody."""

    def branch(self, name: str, hold_for: float = 0.0) -> Branch:
        """The switches of one of several accounts, `name` its provider's."""
        found = Branch(self, name, self._clock, self._dice, hold_for)
        self._branches.append(found)
        return found

    def told(self, reason: Stop, message: str) -> None:
        """A branch has stopped: say so."""
        self._on_stop(reason, message)

    def verdict(self) -> tuple[Stop | None, str]:
        """Why the run stopped early, None where it did not: the strongest reason of the run and its accounts."""
        found = [(self.stop, self.stop_message), *((b.own, b.own_message) for b in self._branches)]
        given = [(stop, message) for stop, message in found if stop is not None]
        return min(given, key=lambda each: each[0] not in AT_ONCE, default=(None, ""))

    def signal(self) -> Signal:
        """A signal of its own for one part of the run; `wake_all` reaches it too."""
        signal = Signal()
        self._signals.append(signal)
        return signal

    def wake_all(self) -> None:
        """Something has changed that concerns every part: a stop, the passing of time."""
        for signal in self._signals:
            signal.notify()

    # --- Stopping ----------------------------------------------------------------------------------------

    def halt(self, reason: Stop, message: str) -> None:
        """Stop submitting; for a reason in `AT_ONCE` stop everything. The first reason stays, unless a stronger one
        (`AT_ONCE`) comes."""
        if reason in AT_ONCE:
            self.ended = True  # whoever is told of it can see
        if self.stop is None or (reason in AT_ONCE and self.stop not in AT_ONCE):
            self.stop, self.stop_message = reason, message
            self._on_stop(reason, message)
        self.wake_all()

    @property
    def submitting(self) -> bool:
        """Whether new submissions may be made."""
        return self.stop is None

    def pause(self, who: str) -> None:
        """Submit nothing until `go_on`, by a person's word; what is in flight is followed. Lasts as long as the run."""
        self.paused_by = who
        self.wake_all()

    def go_on(self) -> None:
        """Submit again."""
        self.paused_by = ""
        self.wake_all()

    def bug(self, error: BaseException) -> None:
        """Something raised that should not have: end the run; `error` is raised when POSTs on the wire are done.

        A ledger that turns out to be damaged is no bug. What was sent before it did is not lost, and the next run will
        refuse it at its start.
        """
        if isinstance(error, LedgerUnusable):
            self.halt(Stop.LEDGER, str(error))
        elif self.error is None:
            self.error = error
        self.give_up()

    def give_up(self) -> None:
        """End the run now, for the reason that it stopped submitting for."""
        self.ended = True
        self.wake_all()


class Branch(_Account):
    """The switches of one account in a run of several: what its answers do holds or stops nobody else."""

    def __init__(self, run: Control, name: str, clock: Clock, dice: Dice, hold_for: float) -> None:
        super().__init__(clock, dice, hold_for)
        self._run = run
        self._name = name
        self.own: Stop | None = None
        self.own_message = ""

    @property
    def ended(self) -> bool:
        """See `Control.ended`; also where this account can't be called any more."""
        return self._run.ended or self.own in AT_ONCE

    @property
    def stop(self) -> Stop | None:
        return self._run.stop or self.own

    @property
    def submitting(self) -> bool:
        """See `Control.submitting`."""
        return self.own is None and self._run.submitting

    @property
    def paused_by(self) -> str:
        return self._run.paused_by

    def halt(self, reason: Stop, message: str) -> None:
        """See `Control.halt`; a reason of `OF_ONE_ACCOUNT` concerns this one only."""
        if reason not in OF_ONE_ACCOUNT:
            self._run.halt(reason, message)
            return
        if self.own is None or (reason in AT_ONCE and self.own not in AT_ONCE):
            self.own, self.own_message = reason, f"{self._name}: {message}"
            self._run.told(reason, self.own_message)
        self._run.wake_all()

    def again(self) -> None:
        """Try a stopped account again."""
        self.own, self.own_message = None, ""
        self._afresh()
        self._run.wake_all()

    def bug(self, error: BaseException) -> None:
        """See `Control.bug`."""
        self._run.bug(error)

    def give_up(self) -> None:
        """See `Control.give_up`."""
        self._run.give_up()

    def signal(self) -> Signal:
        """See `Control.signal`."""
        return self._run.signal()


Switches = Control | Branch
"""What the parts of one account are handed: the run's own switches where it has one account."""
