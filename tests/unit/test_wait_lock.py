"""Every verb that writes leaves when another runner holds the ledger, or waits for it with `--wait-lock`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrunner.core.job import State
from batchrunner.engine import clock
from batchrunner.ledger.files import RunLock
from batchrunner.manifest import load
from tests.cli_support import call, make_ledger
from tests.support import path_to

MANIFEST = """\
version: 1
batch: night
defaults: {model: kling-3-0-turbo, duration: 5}
profiles: {final: {resolution: 1080p}}
shots:
  - {id: won, prompt: a dog}
  - {id: lost, prompt: a dog}
  - {id: lost-too, prompt: a dog}
  - {id: open, prompt: a dog}
"""
STATES = {
    "won": State.SUCCEEDED,
    "lost": State.FAILED,
    "lost-too": State.UNCONFIRMED,
    "open": State.CANCELLED,
}

VERBS: dict[str, tuple[tuple[str, ...], int]] = {
    "run": (("run", "night.yaml"), 3),
    "resume": (("resume", "night"), 3),
    "retry": (("retry", "lost-1"), 0),
    "resolve": (("resolve", "lost-too-1", "--abandon"), 0),
    "cancel": (("cancel", "open-1"), 0),
    "approve": (("approve", "won-1"), 0),
    "reject": (("reject", "won-1"), 0),
    "promote": (("promote", "night", "--profile", "final", "--manifest", "night.yaml"), 2),
}
"""verb -> its words, and how it ends once it has the ledger. The run ends in the state of its jobs; the promotion for
want of a key, which it looks for when it is about to connect."""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunLock]:
    """Another runner's."""
    monkeypatch.chdir(tmp_path)
    for name in ("BATCHRUNNER_DB", "REAPI_API_KEY", "REAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    (tmp_path / "night.yaml").write_text(MANIFEST)
    db = tmp_path / "batchrunner.db"
    jobs = list(load("night.yaml").jobs)
    make_ledger(
        db, [(spec, path_to(STATES[spec.shot], f"task_{spec.shot}")) for spec in jobs], output_dir=str(tmp_path)
    )
    assert call("approve", "won-1").code == 0
    held = RunLock(db)
    held.acquire()
    yield held
    held.release()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("words", "_code"), VERBS.values(), ids=VERBS.keys())
@pytest.mark.usefixtures("lock")
def test_a_verb_that_does_not_wait_leaves_at_once(words: tuple[str, ...], _code: int) -> None:
    ran = call(*words)
    assert (ran.code, ran.out) == (5, "")
    assert "wait for it with --wait-lock 10m" in ran.err


@pytest.mark.parametrize(("words", "code"), VERBS.values(), ids=VERBS.keys())
def test_a_verb_that_waits_begins_when_the_other_has_left(
    lock: RunLock, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    waited: list[float] = []

    async def sleep(self: clock.SystemClock, seconds: float) -> None:
        waited.append(seconds)
        lock.release()

    monkeypatch.setattr(clock.SystemClock, "sleep", sleep)
    ran = call(*words, "--wait-lock", "10m")
    assert ran.code == code, ran.err
    assert "another batchrunner" not in ran.err
    assert len(waited) >= 1
    assert waited[0] == 1.0


def test_a_verb_that_has_waited_long_enough_leaves(lock: RunLock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over: the clock says so, however long the machine took."""
    times = iter([0.0, 0.0, 0.0, 600.5, 601.0])
    monkeypatch.setattr(clock.SystemClock, "monotonic", lambda self: next(times))

    async def sleep(self: clock.SystemClock, seconds: float) -> None:
        assert seconds == 1.0

    monkeypatch.setattr(clock.SystemClock, "sleep", sleep)
    assert call("approve", "won-1", "--wait-lock", "10m").code == 5
