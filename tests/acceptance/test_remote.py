"""A second terminal while a run is alive: pause, continue, limits, cancel, by the real command line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli_support import call
from tests.crash.checks import Books
from tests.crash.command_line import CommandLine, Running
from tests.double import Account, Double, Plan, Rule


class Night:
    """Six jobs, one at a time; the first POST is answered when the test says so."""

    def __init__(self, double: Double, folder: Path) -> None:
        self._double, self._name = double, f"remote-{folder.name.replace('_', '-')}"
        door = double.open(self._name, Plan([Rule("post", "hold")], polls=1))
        self.line = CommandLine.at(folder, door)
        self.line.write(6, in_flight=1)
        self._folder = folder

    def start(self, *more: str) -> Running:
        """A run whose first POST is on the wire."""
        run = self.line.start("run", "night.yaml", *more)
        run.until("claimed")
        return run

    def release(self) -> None:
        self._double.release(self._name)

    def say(self, *words: str) -> str:
        """A word from another terminal that is done."""
        ran = call(*words, "--db", self.line.db)
        assert ran.code == 0, ran.err
        return ran.out

    @property
    def states(self) -> dict[str, int]:
        return dict(Books(self.line.db, self._folder / "copy").states())

    @property
    def account(self) -> Account:
        return self._double.account(self._name)


@pytest.fixture
def night(double: Double, tmp_path: Path) -> Night:
    return Night(double, tmp_path)


def test_a_run_is_paused_limited_and_goes_on(night: Night) -> None:
    run = night.start()
    assert "1 in flight are followed" in night.say("pause")
    night.release()
    run.until("stored")
    assert "paused by" in night.say("status")
    assert "3 jobs cancelled" in night.say("cancel", "clip-[456]", "--why", "too many")
    assert [event["event"] for event in run.events].count("claimed") == 1
    told = night.say("limits", "--in-flight", "3", "--submits-per-minute", "6000")
    assert "0 of 3" in told
    assert "at most 6,000 a minute" in told
    assert "2 pending" in night.say("continue")
    assert run.end() == 0

    assert night.states == {"succeeded": 3, "cancelled": 3}
    assert len(night.account.posts) == 3
    history = call("show", "clip-5", "--db", night.line.db, "--json").json["history"]
    assert [(h["to"], h["reason"]) for h in history[-1:]] == [("cancelled", "too many")]
    assert history[-1]["who"]
    names = [event["event"] for event in run.events]
    for name in ("paused", "withdrawn", "limits_set", "continued"):
        assert name in names


def test_a_paused_run_of_which_nothing_is_left_ends(night: Night) -> None:
    run = night.start()
    night.say("pause")
    night.release()
    run.until("stored")
    assert "5 jobs cancelled" in night.say("cancel", "night")
    assert run.end() == 0
    assert night.states == {"succeeded": 1, "cancelled": 5}


def test_what_was_sent_is_not_withdrawn(night: Night) -> None:
    run = night.start()
    told = night.say("cancel", "clip-1", "clip-2")
    assert "clip-1: left alone, submitting" in told
    assert "clip-2: cancelled" in told
    night.release()
    assert run.end() == 0
    assert night.states == {"succeeded": 5, "cancelled": 1}


def test_a_pause_ends_with_its_run(night: Night) -> None:
    run = night.start()
    night.say("pause")
    night.release()
    run.until("stored")
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    assert night.states == {"succeeded": 1, "pending": 5}
    assert night.line.call("run", "night.yaml") == 0
    assert night.states == {"succeeded": 6}


def test_a_paused_run_stops_at_its_deadline(night: Night) -> None:
    run = night.start("--for", "3s")
    night.say("pause")
    night.release()
    assert run.end() == 4
    assert night.states == {"succeeded": 1, "pending": 5}
    assert not list(night.line.folder.glob("*.sock"))


def test_after_a_kill_nobody_answers_and_the_next_run_does(night: Night) -> None:
    run = night.start()
    run.kill()
    assert (night.line.folder / "batchrunner.db.sock").is_socket()
    for verb in ("pause", "continue", "limits"):
        ran = call(verb, "--db", night.line.db)
        assert ran.code == 2
        assert "no run is alive" in ran.err
    assert "5 jobs cancelled" in night.say("cancel", "night")
    night.release()


def test_a_word_that_is_refused_says_why(night: Night) -> None:
    run = night.start()
    ran = call("cancel", "clap-1", "--db", night.line.db)
    assert ran.code == 2
    assert "did you mean clip-1?" in ran.err
    night.release()
    assert run.end() == 0


def test_without_a_ledger_there_is_nobody_to_ask(tmp_path: Path) -> None:
    ran = call("pause", "--db", tmp_path / "none.db")
    assert ran.code == 2
    assert "no ledger" in ran.err
