"""`retry`, `resolve`, `cancel`."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import JobSpec, Problem, State
from batchrunner.engine.spool import Spool, Spooled
from batchrunner.ledger.files import RunLock
from tests.cli_support import Ran, call, make_ledger
from tests.support import path_to, spec

WHY = Problem("no", 80001)
SENT = (e.Claimed(), e.Accepted("task_x"))
KINDS: dict[str, tuple[e.Event, ...]] = {
    "rejected": (e.Claimed(), e.Rejected(WHY)),
    "moderated": (e.Claimed(), e.Accepted("task_m"), e.TaskFailed(WHY, moderated=True)),
    "provider": (e.Claimed(), e.Accepted("task_p"), e.TaskFailed(WHY)),
    "lost": (e.Claimed(), e.Accepted("task_l"), e.Vanished(WHY)),
    "abandoned": (e.Claimed(), e.Ambiguous(WHY), e.Abandoned("me")),
}
"""How a job comes to each kind of failure; its shot is named after the kind."""


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    return tmp_path / "batchrunner.db"


@pytest.fixture
def failures(db: Path) -> Path:
    make_ledger(
        db, [*((spec(kind), events) for kind, events in KINDS.items()), (spec("fine"), path_to(State.SUCCEEDED))]
    )
    return db


def states() -> dict[str, str]:
    return {j["job"]: j["state"] for j in call("jobs", "--json").json if j["current"]}


def keys(ran: Ran, what: str) -> list[str]:
    assert ran.code == 0, ran.err
    return [one["job"] for one in ran.json[what]]


def history(key: str, **options: Any) -> list[dict[str, Any]]:
    words = [str(w) for name, value in options.items() for w in (f"--{name}", value)]
    found: list[dict[str, Any]] = call("show", key, *words, "--json").json["history"]
    return found


# --- retry -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("failures")
@pytest.mark.parametrize("name", ["night", "*", "night/*"])
def test_a_batch_or_a_pattern_retries_what_was_refunded(name: str) -> None:
    ran = call("retry", name, "--json")
    assert keys(ran, "retried") == ["rejected-1", "moderated-1", "provider-1"]
    assert keys(ran, "skipped") == ["lost-1", "abandoned-1"]
    assert "--kind lost" in ran.json["skipped"][0]["why"]
    assert ran.json["credits"] == 3 * 630
    assert states()["provider-1"] == "pending"
    assert states()["lost-1"] == "failed"
    last = history("provider-1")[-1]
    assert (last["event"], last["reason"]) == ("retried", "retry")
    assert last["who"]


@pytest.mark.usefixtures("failures")
def test_a_kind_or_the_key_is_the_consent_to_pay_again(failures: Path) -> None:
    assert keys(call("retry", "night", "--kind", "lost", "--json"), "retried") == ["lost-1"]
    assert keys(call("retry", "abandoned-1", "--json"), "retried") == ["abandoned-1"]
    connection = sqlite3.connect(failures)
    try:
        consents = connection.execute("SELECT consent FROM attempt WHERE consent IS NOT NULL").fetchall()
    finally:
        connection.close()
    assert len(consents) == 2


@pytest.mark.usefixtures("failures")
def test_a_retry_says_what_it_will_cost_and_how_to_go_on() -> None:
    ran = call("retry", "night")
    assert "lost-1: left alone, lost: its submission was, or may have been, charged" in ran.out
    assert "3 jobs pending again; submitting them will cost 1,890 credits ($1.89)" in ran.out
    assert "batchrunner resume night" in ran.out
    again = call("retry", "night")
    assert again.code == 0
    assert "nothing to retry" in again.out


@pytest.mark.usefixtures("failures")
def test_a_job_that_did_not_fail_is_left_alone() -> None:
    ran = call("retry", "fine-1", "provider-1", "--json")
    assert keys(ran, "retried") == ["provider-1"]
    assert ran.json["skipped"] == [
        {"batch": "night", "job": "fine-1", "state": "succeeded", "why": "is succeeded, not failed"}
    ]
    wrong = call("retry", "moderated-1", "--kind", "lost", "--json")
    assert (keys(wrong, "retried"), keys(wrong, "skipped")) == ([], ["moderated-1"])


def test_old_revisions_are_not_retried(db: Path) -> None:
    make_ledger(db, [(spec("a", prompt="old"), KINDS["provider"]), (spec("gone"), KINDS["rejected"])])
    make_ledger(db, [(spec("a"), ())])
    ran = call("retry", "night", "gone-1", "--json")
    assert keys(ran, "retried") == []
    assert "old revision" in ran.json["skipped"][0]["why"]


@pytest.mark.usefixtures("failures")
@pytest.mark.parametrize("verb", ["retry", "cancel"])
@pytest.mark.parametrize(
    ("name", "said"),
    [("nihgt", "did you mean the batch night?"), ("nope-1", "no batch and no job nope-1"), ("x*", "no job x*")],
)
def test_what_is_not_there_exits_2_and_nothing_changes(verb: str, name: str, said: str) -> None:
    before = states()
    ran = call(verb, "night", name)
    assert ran.code == 2
    assert said in ran.err
    assert states() == before


def test_a_name_that_is_both_is_not_guessed(db: Path) -> None:
    make_ledger(db, [(spec("a"), KINDS["rejected"])], name="a-1")
    ran = call("retry", "a-1")
    assert ran.code == 2
    assert "both a batch and a job" in ran.err
    assert keys(call("retry", "a-1/a-1", "--json"), "retried") == ["a-1"]


@pytest.mark.parametrize("words", [["retry", "x"], ["cancel", "x"], ["resolve", "x", "--abandon"]])
def test_a_word_never_makes_a_ledger(words: list[str], db: Path) -> None:
    ran = call(*words)
    assert ran.code == 2
    assert "no ledger" in ran.err
    assert list(db.parent.iterdir()) == []


@pytest.mark.parametrize("words", [["retry", "night"], ["cancel", "night"], ["resolve", "a-1", "--abandon"]])
def test_beside_a_run_a_word_exits_5(words: list[str], failures: Path) -> None:
    lock = RunLock(failures)
    lock.acquire()
    try:
        ran = call(*words)
    finally:
        lock.release()
    assert ran.code == 5
    assert "another batchrunner" in ran.err


def test_an_unknown_price_is_said(db: Path) -> None:
    make_ledger(db, [(spec("a", credits=None), KINDS["rejected"]), (spec("b"), KINDS["provider"])])
    assert call("retry", "night", "--json").json["credits"] is None


# --- resolve ---------------------------------------------------------------------------------------------

DOUBT = path_to(State.UNCONFIRMED)


@pytest.fixture
def doubts(db: Path) -> Path:
    jobs: list[tuple[JobSpec, tuple[e.Event, ...]]] = [(spec(s), DOUBT) for s in ("a", "b")]
    make_ledger(db, [*jobs, (spec("run"), path_to(State.RUNNING, "task_r"))])
    return db


@pytest.mark.usefixtures("doubts")
def test_it_became_this_task() -> None:
    ran = call("resolve", "a-1", "--task-id", "task_a", "--why", "seen in the list", "--json")
    assert ran.code == 0
    assert ran.json == {"resolved": [{"batch": "night", "job": "a-1"}], "state": "running"}
    last = history("a-1")[-1]
    assert (last["event"], last["reason"]) == ("identified", "task task_a: seen in the list")
    assert call("status", "night", "--json").json["credits"]["at_risk"] == 630


@pytest.mark.usefixtures("doubts")
def test_submit_it_again() -> None:
    ran = call("resolve", "a-1", "--resubmit")
    assert ran.code == 0
    assert "pending: the next run submits it, for 630 credits ($0.63)" in ran.out
    assert states()["a-1"] == "pending"
    # what may have been charged stays at risk
    assert call("status", "night", "--json").json["credits"]["at_risk"] == 2 * 630


@pytest.mark.usefixtures("doubts")
def test_give_several_up() -> None:
    assert call("resolve", "*", "--abandon").code == 0
    assert states() == {"a-1": "failed", "b-1": "failed", "run-1": "running"}


@pytest.mark.usefixtures("doubts")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a-1"], "exactly one of"),
        (["a-1", "--abandon", "--resubmit"], "exactly one of"),
        (["a-1", "--task-id", ""], "no task id"),
        (["a-1", "--task-id", "a b"], "no task id"),
        (["a-1", "--task-id", "x" * 129], "no task id"),
        (["a-1", "--task-id", "task_1\n"], "no task id"),
        (["a-1", "--task-id", "task_r"], "belongs to job run-1 already"),
        (["*", "--task-id", "task_a"], "means 2; name one of them"),
        (["run-1", "--abandon"], "run-1 is running, not unconfirmed"),
        (["run*", "--abandon"], "names no unconfirmed job"),
        (["nope", "--abandon"], "no job nope"),
        (["a-1", "--abandon", "--revision", "3"], "not unconfirmed"),
    ],
)
def test_what_makes_no_sense_exits_2_and_nothing_changes(words: list[str], said: str) -> None:
    before = states()
    ran = call("resolve", *words)
    assert ran.code == 2
    assert said in ran.err
    assert states() == before


def test_an_old_revision_can_be_resolved_but_not_resubmitted(db: Path) -> None:
    make_ledger(db, [(spec("a", prompt="old"), DOUBT)])
    make_ledger(db, [(spec("a"), ())])
    refused = call("resolve", "a-1", "--resubmit")
    assert refused.code == 2
    assert "not in the manifest any more" in refused.err
    assert call("resolve", "a-1", "--task-id", "task_old").code == 0
    assert history("a-1", revision=1)[-1]["to"] == "running"
    assert states() == {"a-1": "pending"}


def test_several_unconfirmed_revisions_need_their_number(db: Path) -> None:
    make_ledger(db, [(spec("a", prompt="old"), DOUBT)])
    make_ledger(db, [(spec("a"), DOUBT)])
    ran = call("resolve", "a-1", "--abandon")
    assert ran.code == 2
    assert "say which with --revision: 1, 2" in ran.err
    assert call("resolve", "a-1", "--abandon", "--revision", "1").code == 0
    assert states() == {"a-1": "unconfirmed"}


def test_the_batch_is_needed_where_keys_repeat(db: Path) -> None:
    for name in ("night", "day"):
        make_ledger(db, [(spec("a"), DOUBT)], name=name, output_dir=f"/out/{name}")
    assert "night/a-1, day/a-1" in call("resolve", "a-1", "--abandon").err
    assert call("resolve", "day/a-1", "--abandon").code == 0


def test_what_a_crash_left_on_the_wire_is_unconfirmed_first(db: Path) -> None:
    make_ledger(db, [(spec("a"), path_to(State.SUBMITTING)), (spec("b"), path_to(State.SUBMITTING))])
    ids = {j["job"]: n for n, j in enumerate(call("jobs", "--json").json, 1)}
    spool = Spool(db)
    spool.append(Spooled(ids["b-1"], 1, "task_b"))
    spool.close()
    assert call("resolve", "a-1", "--task-id", "task_a").code == 0
    assert [h["event"] for h in history("a-1")] == ["recorded", "claimed", "interrupted", "identified"]
    assert states() == {"a-1": "running", "b-1": "running"}


# --- cancel ----------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(db: Path) -> Path:
    make_ledger(
        db,
        [(spec("a"), ()), (spec("b"), ()), (spec("run"), path_to(State.RUNNING)), (spec("doubt"), DOUBT)],
    )
    return db


@pytest.mark.usefixtures("mixed")
def test_cancel_withdraws_what_was_not_sent() -> None:
    ran = call("cancel", "night", "--json")
    assert keys(ran, "cancelled") == ["a-1", "b-1"]
    assert [(s["job"], s["state"]) for s in ran.json["skipped"]] == [("run-1", "running"), ("doubt-1", "unconfirmed")]
    assert history("a-1")[-1]["event"] == "withdrawn"


@pytest.mark.usefixtures("mixed")
def test_cancel_one_and_say_so() -> None:
    ran = call("cancel", "a-1", "run-1", "a*")
    assert ran.code == 0
    assert ran.out == "  a-1: cancelled\n  run-1: left alone, running\n1 job cancelled\n"
    again = call("cancel", "a-1")
    assert (again.code, again.out) == (0, "  a-1: left alone, cancelled\nnothing to cancel: no pending job\n")


def test_many_that_are_left_alone_are_counted(db: Path) -> None:
    done = [(spec("a", n), path_to(State.RUNNING, f"task_{n}")) for n in range(1, 31)]
    make_ledger(db, [*done, (spec("b"), ())])
    assert call("cancel", "night").out == "  b-1: cancelled\n  30 left alone: running\n1 job cancelled\n"
