"""The switches of a run, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import math

import pytest

from batchrunner.engine.control import (
    AT_ONCE,
    MAX_AMBIGUOUS_IN_A_ROW,
    MAX_REJECTED_IN_A_ROW,
    UNREACHABLE_AT_START,
    UNREACHABLE_LATER,
    Control,
    Signal,
    Stop,
)
from batchrunner.engine.slots import Slots
from tests.support import FakeClock


class Loaded:
    """Dice that always fall the same way; highest by default, so that a backoff is its ceiling."""

    def __init__(self, value: float = 0.999999) -> None:
        self.value = value

    def __call__(self) -> float:
        return self.value


class Run:
    """A control with what it was told and what it told."""

    def __init__(self, hold_for: float = 0.0) -> None:
        self.clock = FakeClock()
        self.stops: list[tuple[Stop, str]] = []
        self.control = Control(self.clock, Loaded(), lambda stop, message: self.stops.append((stop, message)), hold_for)  # type: ignore[arg-type]

    def submits(self) -> bool:
        return self.control.submitting

    def stopped(self) -> Stop | None:
        return self.control.stop


@pytest.fixture
def run() -> Run:
    return Run()


# --- Stopping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Stop)
def test_every_reason_stops_submitting(run: Run, reason: Stop) -> None:
    assert run.submits()
    run.control.halt(reason, "why")
    assert not run.submits()
    assert run.control.ended is (reason in AT_ONCE)
    assert (run.control.stop, run.control.stop_message) == (reason, "why")
    assert run.stops == [(reason, "why")]


def test_what_ends_a_run_at_once() -> None:
    assert {Stop.CREDENTIALS, Stop.UNREACHABLE, Stop.INTERRUPTED, Stop.TERMINATED} == AT_ONCE


def test_the_first_reason_stays_unless_a_stronger_one_comes(run: Run) -> None:
    run.control.halt(Stop.BUDGET, "first")
    run.control.halt(Stop.DEADLINE, "second")
    assert run.stopped() is Stop.BUDGET
    assert run.control.ended is False
    run.control.halt(Stop.INTERRUPTED, "third")
    assert (run.stopped(), run.control.ended) == (Stop.INTERRUPTED, True)
    run.control.halt(Stop.CREDENTIALS, "fourth")
    run.control.halt(Stop.DISK, "fifth")
    assert run.stopped() is Stop.INTERRUPTED
    assert [r for r, _ in run.stops] == [Stop.BUDGET, Stop.INTERRUPTED]


def test_a_bug_ends_the_run_and_the_first_is_kept(run: Run) -> None:
    first = KeyError("x")
    run.control.bug(first)
    run.control.bug(ValueError("y"))
    assert run.control.error is first
    assert run.control.ended
    assert run.control.stop is None


# --- The hold of a 429 -----------------------------------------------------------------------------------


def test_a_hold_lasts_as_long_as_the_service_says(run: Run) -> None:
    assert run.control.hold() == 0.0
    assert run.control.throttled(30.0) == 30.0
    run.clock.forward(29.0)
    assert run.control.hold() == pytest.approx(1.0)
    run.clock.forward(1.0)
    assert run.control.hold() == 0.0


def test_a_hold_is_clamped_and_never_shortened(run: Run) -> None:
    assert run.control.throttled(1e9) == 3600.0
    assert run.control.throttled(5.0) == 3600.0
    assert run.control.throttled(-5.0) == 3600.0


def test_a_hold_of_an_earlier_run() -> None:
    run = Run(hold_for=12.0)
    assert run.control.hold() == 12.0
    assert run.control.throttled(None) == 12.0  # an answer to nothing that we sent now


def test_without_a_word_the_holds_grow_once_a_hold(run: Run) -> None:
    waits = []
    for _ in range(8):
        waits.append(run.control.throttled(None))
        run.control.throttled(None)  # answers that were on the wire when the hold began say nothing new
        run.control.throttled(None)
        run.clock.forward(run.control.hold())
    assert waits == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60], rel=1e-4)
    run.control.accepted()
    assert run.control.throttled(None) == pytest.approx(2, rel=1e-4)


def test_the_wall_clock_may_jump(run: Run) -> None:
    run.control.throttled(30.0)
    run.clock.wall_now += 86400
    assert run.control.hold() == 30.0
    run.clock.wall_now -= 2 * 86400
    assert run.control.hold() == 30.0


# --- The breaker -----------------------------------------------------------------------------------------


def outcome(control: Control, letters: str) -> Stop | None:
    for letter in letters:
        {"a": control.accepted, "r": control.rejected, "u": control.ambiguous}[letter]()
    return control.stop


@pytest.mark.parametrize(
    ("letters", "stopped"),
    [
        ("rrrr", False),
        ("rrrrr", True),
        ("rrrrarrrr", False),
        ("uu", False),
        ("uuu", True),
        ("uuauu", False),
        ("uuruu", True),  # five failed submissions in a row, of either kind
        ("uurr", False),
        ("uurru", True),
        ("rruur", True),
        ("rrrruarrrr", True),
        ("rrruarrrr", False),
        ("rurur", True),
        ("ururar", False),
    ],
)
def test_breaker(run: Run, letters: str, stopped: bool) -> None:
    assert outcome(run.control, letters) is (Stop.BREAKER if stopped else None)
    assert run.control.ended is False


def test_the_breaker_says_what_it_saw(run: Run) -> None:
    outcome(run.control, "r" * MAX_REJECTED_IN_A_ROW)
    assert run.stops[0][1] == "5 submissions in a row were rejected"
    other = Run()
    outcome(other.control, "u" * MAX_AMBIGUOUS_IN_A_ROW)
    assert other.stops[0][1] == "3 submissions in a row may or may not have been accepted"
    third = Run()
    outcome(third.control, "rrrru")
    assert third.stops[0][1] == "5 submissions in a row failed"


# --- Whether anybody is there ----------------------------------------------------------------------------


def silence(run: Run, seconds: float) -> None:
    """Calls without an answer, as soon as each may be made, for so long."""
    end = run.clock.monotonic() + seconds
    while run.clock.monotonic() < end and run.submits():
        run.control.silent("no route")
        run.clock.forward(max(run.control.quiet(), 0.1))


def test_gives_up_after_a_minute_when_nobody_ever_answered(run: Run) -> None:
    run.control.silent("no route")
    run.clock.forward(UNREACHABLE_AT_START - 0.001)
    run.control.silent("no route")
    assert run.submits()
    run.clock.forward(0.001)
    run.control.silent("no route")
    assert (run.stopped(), run.control.ended) == (Stop.UNREACHABLE, True)
    assert run.stops[0][1] == "no answer for 60 s: no route"


def test_is_patient_once_somebody_has_answered(run: Run) -> None:
    run.control.heard()
    silence(run, UNREACHABLE_LATER - 60)
    assert run.submits()
    silence(run, 120)
    assert run.stopped() is Stop.UNREACHABLE


def test_an_answer_begins_anew(run: Run) -> None:
    run.control.heard()
    for _ in range(50):
        silence(run, UNREACHABLE_LATER / 2)
        run.control.heard()
        assert run.control.quiet() == 0.0
    assert run.submits()


def test_quiet_grows_and_is_capped(run: Run) -> None:
    assert run.control.quiet() == 0.0
    waits = []
    for _ in range(6):
        run.control.silent("x")
        waits.append(run.control.quiet())
        run.control.silent("x")  # one that was on the wire as well
        assert run.control.quiet() == waits[-1]
        run.clock.forward(waits[-1])
    assert waits == pytest.approx([2, 4, 8, 15, 15, 15], rel=1e-4)


# --- Signals and slots -----------------------------------------------------------------------------------


async def test_a_signal_wakes_everybody_who_waits() -> None:
    signal = Signal()
    waiting = [asyncio.ensure_future(signal.wait(t)) for t in (None, math.inf, 3600.0)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    signal.notify()
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    signal.notify()  # with nobody waiting it is forgotten


async def test_a_signal_that_never_comes() -> None:
    signal = Signal()
    await asyncio.wait_for(signal.wait(0.0), 30)
    assert not signal._waiting


async def test_a_cancelled_wait_is_forgotten() -> None:
    signal = Signal()
    waiting = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not signal._waiting
    signal.notify()


async def test_two_notices_at_once() -> None:
    signal = Signal()
    waiting = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    signal.notify()
    signal.notify()
    await asyncio.wait_for(waiting, 30)


@pytest.mark.parametrize("change", ["halt", "bug", "give_up"])
async def test_whoever_waits_hears_of_the_end(run: Run, change: str) -> None:
    signals = [run.control.signal() for _ in range(3)]
    waiting = [asyncio.ensure_future(s.wait()) for s in signals]
    await asyncio.sleep(0)
    {
        "halt": lambda: run.control.halt(Stop.LIMIT, "x"),
        "bug": lambda: run.control.bug(KeyError("x")),
        "give_up": run.control.give_up,
    }[change]()
    await asyncio.wait_for(asyncio.gather(*waiting), 30)


def _free(slots: Slots) -> bool:
    return slots.free


def test_slots() -> None:
    slots = Slots(2)
    assert _free(slots)
    slots.take()
    slots.take()
    assert not _free(slots)
    slots.limit = 3
    assert _free(slots)
    slots.limit = 1
    slots.give_back()
    assert not _free(slots)
    slots.give_back()
    assert _free(slots)
    assert not Slots(1, used=1).free
