"""What people see of a run, with everything that a server or a manifest can say in it."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.app import RunResult
from batchrunner.cli.display import (
    JsonDisplay,
    LineDisplay,
    QuietDisplay,
    counts_text,
    event_line,
    money_text,
    rate_text,
    summary_lines,
    watcher_for,
)
from batchrunner.core.job import Job, Running, State
from batchrunner.engine.control import Stop
from batchrunner.engine.ports import Tally

DB = Path("batchrunner.db")
HOSTILE = "\x1b[2J\x1b]0;pwned\x07\u202egnp\u200b\n\r\x9b31m"
JOB = Job(1, 1, "dog-1", "reapi", "m", {}, 630, "dog-1", False, Running(1, "t"))
HOSTILE_JOB = Job(1, 1, f"dog{HOSTILE}", "reapi", "m", {}, 630, "dog-1", False, Running(1, "t"))


def clean(text: str) -> bool:
    return all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for c in text)


def error(message: str = "it broke", code: Any = 80001, request_id: Any = "req_1") -> dict[str, Any]:
    return {"message": message, "code": code, "request_id": request_id}


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("stored", {}, "dog-1: succeeded"),
        ("taskfailed", {"state": "failed", "error": error()}, "dog-1: failed: it broke (code 80001, request req_1)"),
        ("rejected", {"state": "failed", "error": error(code=None)}, "dog-1: failed: it broke (request req_1)"),
        ("vanished", {"state": "failed", "error": error(request_id=None)}, "dog-1: failed: it broke (code 80001)"),
        ("linkdied", {"state": "failed", "error": error(code=None, request_id=None)}, "dog-1: failed: it broke"),
        ("claimed", {}, None),
        ("progress", {}, None),
        ("accepted", {"task_id": "t"}, None),
        ("completed", {}, None),
        ("nonsense", {}, None),
    ],
)
def test_event_lines(name: str, data: dict[str, Any], line: str | None) -> None:
    assert event_line(name, JOB, data) == line


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("taskfailed", {"state": "pending", "error": error()}, "will be submitted again: it broke"),
        ("linkdied", {"state": "running", "error": error()}, "fresh one"),
        (
            "ambiguous",
            {"state": "unconfirmed", "error": error()},
            "UNCONFIRMED, may have been paid for: it broke (code 80001, request req_1)",
        ),
        ("hold", {"seconds": 30.4}, "waits 30 s"),
        ("unknown_status", {"status": "dreaming"}, "'dreaming'"),
        ("output_renamed", {"wanted": "a.mp4", "output": "a.1.mp4"}, "a.mp4 appeared meanwhile; saved as a.1.mp4"),
        ("left_behind", {"error": error()}, "will be next time: it broke"),
        ("grace_over", {"tasks": 2, "downloads": 1}, "3 in flight are left to the next run"),
        ("stopping", {"reason": "budget", "message": "all gone"}, "(budget): all gone"),
    ],
)
def test_what_other_lines_say(name: str, data: dict[str, Any], words: str) -> None:
    line = event_line(name, JOB, data)
    assert line is not None
    assert words in line


EVENTS = [
    *("stored", "taskfailed", "rejected", "vanished", "linkdied", "ambiguous", "hold", "unknown_status"),
    *("output_renamed", "left_behind", "stopping", "accepted", "notsent", "throttled", "refused"),
]


@pytest.mark.parametrize("state", ["failed", "pending", "running"])
@pytest.mark.parametrize("name", EVENTS)
def test_hostile_text_is_shown_escaped(name: str, state: str) -> None:
    data: dict[str, Any] = {
        "state": state,
        "seconds": 3.0,
        "status": HOSTILE,
        "wanted": HOSTILE,
        "output": HOSTILE,
        "reason": "disk",
        "message": HOSTILE,
        "error": error(HOSTILE, HOSTILE, HOSTILE),
    }
    line = event_line(name, HOSTILE_JOB, data)
    assert line is None or clean(line)


@given(st.sampled_from(EVENTS), st.text(max_size=400), st.text(max_size=40) | st.integers() | st.none())
def test_any_text(name: str, text: str, code: object) -> None:
    data: dict[str, Any] = {
        "state": "failed",
        "seconds": 3.0,
        "status": text,
        "wanted": text,
        "output": text,
        "reason": "disk",
        "message": text,
        "error": error(text, code, text),
    }
    line = event_line(name, JOB, data)
    assert line is None or clean(line)


def test_a_long_message_is_cut() -> None:
    line = event_line("rejected", JOB, {"state": "failed", "error": error("x" * 10_000)})
    assert line is not None
    assert len(line) < 300


# --- The end of a run ------------------------------------------------------------------------------------


def status(**states: int) -> dict[str, Any]:
    return {
        "batch": "night",
        "jobs": sum(states.values()),
        "states": {**dict.fromkeys((s.value for s in State), 0), **states},
        "credits": {"spent": 1260, "reserved": 0, "at_risk": 0, "estimated": 1890, "max": None},
        "old": {},
        "media_warnings": 0,
        "unrecorded": 0,
        "output_dir": "/out/night",
        "run": None,
    }


def lines(*batches: dict[str, Any], stop: Stop | None = None, message: str = "") -> str:
    return "\n".join(summary_lines(RunResult(0, list(batches), stop, message), DB))


def test_summary_of_a_good_night() -> None:
    text = lines(status(succeeded=2))
    assert "night: 2 jobs" in text
    assert "2 succeeded" in text
    assert "1,260 credits ($1.26)" in text
    assert "files in /out/night" in text
    for word in ("failed", "unconfirmed", "left", "stopped", "reserved", "at risk", "budget"):
        assert word not in text


def test_summary_of_a_bad_night() -> None:
    bad = status(failed=1, unconfirmed=2, pending=3, running=1)
    bad["credits"].update(reserved=630, at_risk=400, max=5000)
    bad["old"] = {"unconfirmed": 1}
    text = lines(bad, stop=Stop.BUDGET, message="needs 630")
    for words in (
        "1 failed",
        "3 unconfirmed",
        "4 left",
        "630 credits ($0.63)",
        "400 credits ($0.40)",
        "5,000 credits ($5.00)",
        "batchrunner retry night",
        "batchrunner resolve JOB",
        "stopped early (budget): needs 630",
    ):
        assert words in text, words
    assert "files in" not in text


def test_summary_of_nothing() -> None:
    assert "nothing to do" in lines()
    assert "no jobs" in lines(status())


def test_summary_with_hostile_text() -> None:
    hostile = status(succeeded=1)
    hostile["output_dir"] = f"/out/{HOSTILE}"
    found = summary_lines(RunResult(4, [hostile], Stop.DISK, HOSTILE), DB)
    assert all(clean(line) for line in found)
    assert any("\\x1b[2J" in line for line in found)


# --- The displays ----------------------------------------------------------------------------------------


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    display = JsonDisplay(clock=lambda: 12.34567)
    with display:
        display.begin(["night"], Tally({State.PENDING: 2, State.RUNNING: 0}))
        display.event("accepted", JOB, state="running", task_id="t")
        display.event("stopping", None, reason="disk", message=HOSTILE)
        display.summary(RunResult(4, [status(pending=1)], Stop.DISK, HOSTILE))
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert err == ""
    events = [json.loads(line) for line in out.splitlines()]
    assert [x["event"] for x in events] == ["run_started", "accepted", "stopping", "summary"]
    assert all(x["ts"] == 12.346 for x in events)
    assert events[0]["states"] == {"pending": 2}
    assert events[1]["job"] == "dog-1"
    assert set(status()) < set(events[-1])
    assert (events[-1]["exit_code"], events[-1]["stop"], events[-1]["message"]) == (4, "disk", HOSTILE)


def test_json_summary_of_several_batches(capsys: pytest.CaptureFixture[str]) -> None:
    JsonDisplay(clock=lambda: 1.0).summary(RunResult(0, [status(), status()], None, ""))
    found = json.loads(capsys.readouterr().out)
    assert len(found["batches"]) == 2
    assert found["stop"] is None


def test_a_line_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    display = LineDisplay()
    display.begin(["night", "other"], Tally({State.PENDING: 2}))
    display.event("stored", JOB)
    display.event("accepted", JOB, task_id="t")
    assert capsys.readouterr().out == "night, other: 2 pending\ndog-1: succeeded\n"


@pytest.mark.parametrize("display", [QuietDisplay, LineDisplay])
def test_an_id_that_is_nowhere_on_disk_is_printed_whatever_the_display(
    capsys: pytest.CaptureFixture[str], display: type[QuietDisplay]
) -> None:
    display().event("unrecorded", JOB, task_id="task_9", spooled=False)
    assert "UNRECORDED dog-1 is task task_9" in capsys.readouterr().err


def test_which_display() -> None:
    assert type(watcher_for(DB, as_json=True, quiet=True)) is JsonDisplay
    assert type(watcher_for(DB, as_json=False, quiet=True)) is QuietDisplay
    assert type(watcher_for(DB, as_json=False, quiet=False)) is LineDisplay


def test_counts() -> None:
    tally = Tally({State.SUCCEEDED: 3, State.RUNNING: 12, State.FAILED: 0})
    assert counts_text(tally) == "12 running, 3 succeeded"
    assert counts_text(tally, short=True) == "12 running 3 succeeded"
    assert counts_text(Tally()) == "no jobs"


def test_rate() -> None:
    full = {"in_flight": 3, "in_flight_limit": 20, "hold": 12.2, "per_minute": 7.5, "eta_seconds": 600}
    assert rate_text(full) == "3/20 in flight, held 12 s, 7.5/min, about 10 min left"
    assert rate_text({**full, "hold": 0, "per_minute": None, "eta_seconds": None}) == "3/20 in flight"


def test_money() -> None:
    assert money_text({"spent": 630, "reserved": 0, "at_risk": 0}).startswith("spent 630 credits")
    text = money_text({"spent": 0, "reserved": 1260, "at_risk": 5})
    assert "reserved" in text
    assert "5 at risk" in text
