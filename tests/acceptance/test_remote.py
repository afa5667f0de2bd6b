"""A second terminal while a run is alive: pause, continue, limits, and words on jobs, by the real command line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli_support import call
from tests.crash.checks import Books
from tests.crash.command_line import CommandLine, Running
from tests.double import Account, Double, Plan, Rule


class Night:
    """Six jobs, one at a time; the first POST is answered when the test says so, where it has no other plan."""

    def __init__(self, double: Double, folder: Path, *rules: Rule) -> None:
        self._double, self._name = double, f"remote-{folder.name.replace('_', '-')}"
        door = double.open(self._name, Plan(rules or [Rule("post", "hold")], polls=1))
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
    path = night.line.folder / "night.yaml"
    path.write_text(path.read_text().replace("in_flight: 1", "in_flight: 1, polls_per_minute: 900"))
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
    assert "polls        at most 900 a minute" in told, "the manifest's"
    assert "polls        at most 1,000,000 a minute" in night.say("limits", "--polls-per-minute", "1000000")
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


# --- Words on jobs ---------------------------------------------------------------------------------------

MISHAPS = (
    Rule("post", "reset_after"),
    Rule("task", "fail", 2, 2),
    Rule("post", "hold", 4, 4),
)
"""clip-1 is in doubt, clip-2 has failed, clip-3 is there, clip-4 is on the wire until the release."""


@pytest.fixture
def mishaps(double: Double, tmp_path: Path) -> tuple[Night, Running]:
    """A night in which that has happened, and the run of it."""
    night = Night(double, tmp_path, *MISHAPS)
    run = night.start()
    run.until("stored")
    names = [event["event"] for event in run.events]
    if names.count("claimed") < 4:
        run.until("claimed")
    return night, run


def _history(night: Night, key: str) -> list[str]:
    found = call("show", key, "--db", night.line.db, "--json").json["history"]
    assert all(one["who"] for one in found if one["event"] in {"retried", "identified", "resubmitted", "abandoned"})
    return [one["event"] for one in found]


def test_what_failed_is_retried_by_the_run_itself(mishaps: tuple[Night, Running]) -> None:
    night, run = mishaps
    told = night.say("retry", "night")
    assert "1 job pending again; submitting it will cost 630 credits" in told
    assert "the run that is alive goes on" in told
    assert "resume" not in told
    night.release()
    assert run.end() == 3  # clip-1 is in doubt
    assert night.states == {"succeeded": 5, "unconfirmed": 1}
    assert len(night.account.posts) == 7
    assert _history(night, "clip-2").count("claimed") == 2


def test_a_task_that_was_found_is_followed_by_the_run_itself(mishaps: tuple[Night, Running]) -> None:
    night, run = mishaps
    (task,) = night.account.of("clip-1")
    told = night.say("resolve", "clip-1", "--task-id", task.id, "--why", "in the list")
    assert "the run that is alive follows it" in told
    run.until("stored")  # while a POST of another job is still on the wire
    assert _history(night, "clip-1")[-4:] == ["ambiguous", "identified", "completed", "stored"]
    night.release()
    assert run.end() == 1  # clip-2 has failed
    assert night.states == {"succeeded": 5, "failed": 1}
    assert len(night.account.of("clip-1")) == 1


def test_what_is_sent_again_or_let_go_is_so_for_the_run(mishaps: tuple[Night, Running]) -> None:
    night, run = mishaps
    refused = call("resolve", "clip-3", "--abandon", "--db", night.line.db)
    assert refused.code == 2
    assert "clip-3 is succeeded, not unconfirmed" in refused.err
    assert "the run that is alive submits it, for 630 credits" in night.say("resolve", "clip-1", "--resubmit")
    night.release()
    assert run.end() == 1
    assert night.states == {"succeeded": 5, "failed": 1}
    assert len(night.account.of("clip-1")) == 2  # with consent


def test_a_run_that_has_stopped_submitting_says_so(mishaps: tuple[Night, Running]) -> None:
    night, run = mishaps
    assert "now failed (abandoned)" in night.say("resolve", "clip-1", "--abandon")
    night.say("pause")
    assert "is paused; `batchrunner continue" in night.say("retry", "clip-2")
    night.say("continue")
    night.release()
    assert run.end() == 1
    assert night.states == {"succeeded": 5, "failed": 1}


def test_clips_are_judged_beside_the_run(mishaps: tuple[Night, Running]) -> None:
    night, run = mishaps
    assert "clip-3: approved" in night.say("approve", "clip-3", "--note", "the light")
    assert "clip-3: rejected" in night.say("reject", "clip-3")
    refused = call("approve", "clip-4", "--db", night.line.db)
    assert refused.code == 2
    assert "clip-4 is submitting: only a finished clip can be approved" in refused.err
    verdicts = call("show", "clip-3", "--db", night.line.db, "--json").json["verdicts"]
    assert [(one["verdict"], one["note"]) for one in verdicts] == [("approved", "the light"), ("rejected", "")]
    promoted = call("promote", "night", "--profile", "final", "--db", night.line.db)
    assert promoted.code in {2, 5}
    night.release()
    assert run.end() == 3


def test_what_is_rejected_is_not_promoted_any_more_while_the_promotion_runs(double: Double, tmp_path: Path) -> None:
    night = Night(double, tmp_path, Rule("post", "hold", 4, 4))
    night.line.write(3, in_flight=1, more="profiles: {final: {resolution: 1080p}}")
    assert night.line.call("run", "night.yaml") == 0
    night.say("approve", "*")
    run = night.line.start("promote", "night", "--profile", "final")
    run.until("claimed")
    assert "clip-2: rejected" in night.say("reject", "clip-2")
    night.release()
    assert run.end() == 0
    assert [post.label for post in night.account.posts[3:]] == ["clip-1@final", "clip-3@final"]
