"""`status`, `jobs` and `show`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from pathlib import Path

import pytest

from batchrunner.cli import status as status_module
from batchrunner.core import events as e
from batchrunner.core.adaptive import Learned
from batchrunner.core.job import Problem, State
from batchrunner.engine.clock import wall
from batchrunner.report.results import CSV_COLUMNS, cell
from tests.cli_support import call, make_ledger
from tests.support import FakeClock, open_ledger, path_to, spec

EVIL = "\x1b[2Jgone\u202e"


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    return tmp_path / "batchrunner.db"


@pytest.fixture
def ledger(db: Path) -> Path:
    """One job in every state, the first of them with an old revision that runs."""
    make_ledger(db, [(spec("a", prompt="old"), path_to(State.RUNNING, "task_old"))])
    make_ledger(
        db,
        [
            (
                spec(shot, tags=["hero"] * (shot < "c"), matrix={"x": 2} if shot == "c" else None),
                path_to(s, f"task_{shot}"),
            )
            for shot, s in zip("abcdefgh", State, strict=True)
        ],
        max_credits=9000,
    )
    return db


# --- status ----------------------------------------------------------------------------------------------


def test_without_a_ledger_there_are_zero_batches(db: Path) -> None:
    ran = call("status")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"no ledger at {db} yet")
    ran = call("status", "night", "--json")
    assert (ran.code, ran.json) == (0, {"batches": []})
    assert "no ledger" in ran.err
    assert list(db.parent.iterdir()) == []
    db.with_name("batchrunner.sim.db").touch()
    assert "use --db batchrunner.sim.db" in call("status").out


@pytest.mark.usefixtures("ledger")
def test_status_json_has_the_keys_of_the_contract() -> None:
    one = call("status", "night", "--json")
    assert one.code == 0
    found = one.json
    assert (found["batch"], found["jobs"]) == ("night", 8)
    assert found["states"] == {s.value: 1 for s in State}
    # submitting, running, downloading and the old revision; unconfirmed; succeeded
    money = {k: found["credits"][k] for k in ("spent", "reserved", "at_risk", "estimated")}
    assert money == {"spent": 2 * 630, "reserved": 3 * 630, "at_risk": 630, "estimated": 8 * 630}
    assert found["old"] == {"running": 1}
    assert call("status", "--json").json == {"batches": [found]}


@pytest.mark.usefixtures("ledger")
def test_status_says_what_to_do_next() -> None:
    text = call("status").out
    assert text.startswith("night: 8 jobs, 14 % done\n")
    assert "not in the manifest any more: 1 running" in text
    assert "`batchrunner jobs night --state unconfirmed`" in text
    assert "batchrunner resolve JOB" in text
    assert "`batchrunner retry night`" in text
    assert "5 left: run the manifest again, or `batchrunner resume night`" in text
    assert "budget     9,000 credits ($9.00), 5,220 left" in text


def test_a_ledger_elsewhere_is_named_in_every_suggestion(ledger: Path, tmp_path: Path) -> None:
    other = tmp_path / "my night.db"
    os.rename(ledger, other)
    text = call("status", "--db", other).out
    assert "`batchrunner retry night --db 'my night.db'`" in text


@pytest.mark.usefixtures("ledger")
def test_an_unknown_batch_hints_at_the_nearest() -> None:
    for verb in ("status", "jobs"):
        ran = call(verb, "nihgt")
        assert ran.code == 2
        assert "no batch nihgt; did you mean night?" in ran.err


def test_an_empty_ledger_says_so(db: Path) -> None:
    async def make() -> None:
        async with open_ledger(db, FakeClock()):
            pass

    asyncio.run(make())
    assert call("status").out == "the ledger has no batch yet\n"
    assert call("status", "--json").json == {"batches": []}
    assert call("jobs", "--json").json == []


def test_a_foreign_file_is_refused(db: Path) -> None:
    db.write_bytes(b"this is no database, and it is long enough" * 100)
    ran = call("status")
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert "Traceback" not in ran.err


def test_a_live_run_shows_its_pace_and_watch_follows_it(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin() -> int:
        clock = FakeClock(wall=wall())
        async with open_ledger(ledger, clock) as opened:
            run = await opened.start_run(["night"])
            opened.beat(run, {"eta_seconds": 750.0, "per_minute": 12.34})
            return run

    async def end(run: int) -> None:
        async with open_ledger(ledger, FakeClock(wall=wall())) as opened:
            await opened.end_run(run, "deadline", 4)

    run = asyncio.run(begin())
    assert f"a run is alive (process {os.getpid()}), 12.3 a minute, about 13 min left" in call("status").out
    assert "or `batchrunner resume" not in call("status").out
    assert call("status", "night", "--json").json["run"]["eta_seconds"] == 750.0
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        asyncio.run(end(run))

    monkeypatch.setattr(status_module, "pause", pause)
    watched = call("status", "--watch").out
    assert pauses == [1.0]
    assert watched.count("night: 1 pending, ") == 1
    assert "with exit code 4, stopped early: deadline" in watched


def test_what_the_service_allows_is_shown(ledger: Path) -> None:
    async def learn() -> None:
        async with open_ledger(ledger, FakeClock()) as opened:
            await opened.bind_origin("reapi", "https://reapi.test")
            opened.save_pace("reapi", Learned(submits=7.0, in_flight=40))

    assert call("status", "night", "--json").json["learned_limits"] is None
    asyncio.run(learn())
    found = call("status", "night", "--json").json["learned_limits"]
    assert {k: found[k] for k in ("submits_per_minute", "in_flight", "calls_per_minute")} == {
        "submits_per_minute": 420.0,
        "in_flight": 40,
        "calls_per_minute": None,
    }
    assert "service    about 420 submissions a minute, about 40 in flight (" in call("status").out


def test_watch_ends_quietly_with_ctrl_c(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin() -> None:
        async with open_ledger(ledger, FakeClock(wall=wall())) as opened:
            await opened.start_run(["night"])

    def pause(seconds: float) -> None:
        raise KeyboardInterrupt

    asyncio.run(begin())
    monkeypatch.setattr(status_module, "pause", pause)
    assert call("status", "--watch").code == 0
    assert call("status", "--watch", "--json").code == 2


def test_a_run_that_died_is_told(ledger: Path) -> None:
    async def begin() -> None:
        async with open_ledger(ledger, FakeClock()) as opened:
            await opened.start_run(["night"])

    asyncio.run(begin())
    assert "died without a word" in call("status").out


# --- jobs ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ledger")
def test_jobs_json_has_the_keys_of_the_contract() -> None:
    found = call("jobs", "--json").json
    assert len(found) == 9
    keys = (
        "job batch shot take matrix tags model request state task_id attempts credits error output sha256 bytes current"
    )
    assert set(keys.split()) <= set(found[0])
    by_state = {j["state"]: j for j in found if j["current"]}
    assert by_state["unconfirmed"]["error"] == {
        "kind": "ambiguous",
        "code": "reset",
        "message": "reset",
        "request_id": None,
    }
    assert by_state["failed"]["error"]["request_id"] == "req_2"
    assert by_state["failed"]["credits"] == by_state["pending"]["credits"] == 0
    assert by_state["running"]["credits"] == 630
    assert by_state["succeeded"]["output"] == "/out/a.mp4"
    (old,) = [j for j in found if not j["current"]]
    assert (old["job"], old["task_id"], old["revision"]) == ("a-1", "task_old", 1)


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["--state", "failed", "--state", "succeeded"], ["f-1", "g-1"]),
        (["--only", "[b-c]*"], ["b-1", "c@x=2-1"]),
        (["--tag", "hero", "--state", "submitting"], ["b-1"]),
        (["night", "--only", "nothing"], []),
    ],
)
def test_jobs_are_chosen(arguments: list[str], keys: list[str]) -> None:
    assert [j["job"] for j in call("jobs", *arguments, "--json").json] == keys


@pytest.mark.usefixtures("ledger")
def test_jobs_for_people() -> None:
    text = call("jobs").out
    assert "a-1 (old, revision 1)  running" in text
    assert "rejected 40000: no" in text
    assert text.endswith("9 jobs\n")
    assert call("jobs", "--only", "nothing").out == "no such jobs\n"
    bad = call("jobs", "--state", "fialed")
    assert bad.code == 2
    assert "'failed'" in bad.err
    assert call("jobs", "--json", "--csv").code == 2


def test_jobs_without_a_ledger(db: Path) -> None:
    assert call("jobs", "--json").json == []
    assert call("jobs", "--csv").out == ",".join(CSV_COLUMNS) + "\r\n"
    assert call("jobs").code == 0
    assert list(db.parent.iterdir()) == []


def test_no_spreadsheet_runs_what_a_prompt_says(db: Path) -> None:
    prompts = ["=1+1", "+cmd", "-2", "@x", "\ttab", "plain, with a comma", "two\nlines"]
    make_ledger(db, [(spec(f"s{n}", prompt=p, matrix={"a": 1}, tags=["x", "y"]), ()) for n, p in enumerate(prompts)])
    rows = list(csv.DictReader(io.StringIO(call("jobs", "--csv").out, newline="")))
    assert [r["prompt"] for r in rows] == ["'=1+1", "'+cmd", "'-2", "'@x", "'\ttab", *prompts[5:]]
    assert rows[0]["matrix"] == '{"a":1}'
    assert rows[0]["tags"] == "x y"
    assert json.loads(rows[0]["request"])["prompt"] == "=1+1"
    assert rows[0]["created_at"] == "2027-01-15T08:00:00.000Z"
    assert rows[0]["current"] == "true"
    assert cell("\rx") == "'\rx"
    assert cell(-3) == -3


# --- show ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ledger")
def test_show_tells_the_whole_history() -> None:
    ran = call("show", "f-1", "--json")
    assert ran.code == 0
    found = ran.json
    assert [h["event"] for h in found["history"]] == ["recorded", "claimed", "accepted", "completed", "stored"]
    assert all(h["at"] and h["to"] for h in found["history"])
    assert found["attempt_list"][0]["request_id"] == "req_1"
    assert found["sidecar"] == "/out/a.mp4.json"
    text = call("show", "f-1").out
    for part in ("prompt: a f", "submitting -> running", "task_f", "/out/a.mp4 (not there any more)", "sha256"):
        assert part in text


@pytest.mark.usefixtures("ledger")
def test_show_says_what_a_person_can_do() -> None:
    assert "batchrunner resolve c@x=2-1 --task-id ID" in call("show", "c@x=2-1").out
    assert "batchrunner retry g-1" in call("show", "night/g-1").out


@pytest.mark.usefixtures("ledger")
def test_show_an_older_revision() -> None:
    text = call("show", "a-1").out
    assert "revision   2 (others: 1; --revision N shows one)" in text
    old = call("show", "a-1", "--revision", "1", "--json").json
    assert (old["revision"], old["current"], old["request"]["prompt"]) == (1, False, "old")
    assert "running, not in the manifest any more" in call("show", "a-1", "--revision", "1").out
    assert call("show", "a-1", "--revision", "7").code == 2


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nope", "no job nope"),
        ("g-2", "did you mean g-1?"),
        ("day/a-1", "no job day/a-1"),
        ("*", "means 8 jobs; name one of them: night/a-1, night/b-1"),
    ],
)
def test_show_of_what_is_not_there_exits_2(name: str, said: str) -> None:
    ran = call("show", name)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_show_needs_the_batch_where_keys_repeat(ledger: Path) -> None:
    make_ledger(ledger, [(spec("a"), ())], name="day", output_dir="/out/day")
    ran = call("show", "a-1")
    assert ran.code == 2
    assert "night/a-1, day/a-1" in ran.err
    assert call("show", "day/a-1", "--json").json["batch"] == "day"
    assert call("show", "day/a*", "--json").json["batch"] == "day"


def test_a_moved_shot_shows_its_current_revision(db: Path) -> None:
    make_ledger(db, [(spec("a", prompt="old"), ()), (spec("b"), ())])
    make_ledger(db, [(spec("b"), ()), (spec("a"), ())])
    assert call("show", "a-1", "--json").json["current"] is True


def test_show_without_a_ledger_exits_2(db: Path) -> None:
    ran = call("show", "a-1")
    assert ran.code == 2
    assert "no ledger" in ran.err
    assert list(db.parent.iterdir()) == []


def test_no_foreign_text_reaches_the_terminal_as_it_is(db: Path) -> None:
    failed = (e.Claimed(), e.Rejected(Problem(EVIL, 40000, 400, "req_1")))
    make_ledger(db, [(spec("a", prompt=EVIL), failed)])
    for arguments in (["jobs"], ["show", "a-1"], ["status"]):
        ran = call(*arguments)
        assert ran.code == 0
        assert "\x1b" not in ran.out
        assert "\u202e" not in ran.out
    assert call("jobs", "--json").json[0]["request"]["prompt"] == EVIL
