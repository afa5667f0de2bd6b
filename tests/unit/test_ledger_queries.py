"""What `status`, `jobs` and `show` read, by CONTRACT.md; and what the names on a command line mean."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Job, Problem, State
from batchrunner.core.selection import Selection
from batchrunner.ledger import described, naming, queries
from batchrunner.ledger.address import Address
from batchrunner.ledger.connection import open_reader
from batchrunner.ledger.store import Ledger
from tests.support import START, FakeClock, drive, open_ledger, path_to, spec, with_jobs

BOTH_STORES = True

SEEN = Problem("reset", "reset", 502, "req_7")


@pytest.fixture
async def ledger(path: Address) -> AsyncIterator[Ledger]:
    async with open_ledger(path, FakeClock()) as opened:
        yield opened


@pytest.fixture
def ask(path: Address, ledger: Ledger) -> Callable[..., Any]:
    """Put a question on a read-only connection beside the writer, as the commands do."""

    def question(function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        connection = open_reader(path)
        assert connection is not None
        try:
            found = function(connection, *args, **more)
            return list(found) if hasattr(found, "__next__") else found
        finally:
            connection.close()

    return question


Ask = Callable[..., Any]


async def in_every_state(ledger: Ledger) -> dict[State, Job]:
    jobs = await with_jobs(ledger, [spec(f"s{n}") for n in range(len(State))], max_credits=9999)
    return {s: await drive(ledger, j, *path_to(s, f"t_{s.value}")) for s, j in zip(State, jobs, strict=True)}


# --- status ----------------------------------------------------------------------------------------------


async def test_status(ledger: Ledger, ask: Ask) -> None:
    await in_every_state(ledger)
    found = ask(queries.status, "night", START)
    assert found == {
        "batch": "night",
        "jobs": 8,
        "states": dict.fromkeys((s.value for s in State), 1),
        # submitting and running are reserved; downloading and succeeded spent; unconfirmed at risk; rejected refunded
        "credits": {"spent": 1260, "reserved": 1260, "at_risk": 630, "estimated": 8 * 630, "max": 9999},
        "old": {},
        "media_warnings": 0,
        "waiting": 0,
        "output_dir": "/out/night",
        "run": None,
        "unrecorded": 0,
        "learned_limits": None,
    }
    json.dumps(found)


async def test_status_of_what_is_not_there(ledger: Ledger, ask: Ask) -> None:
    assert ask(queries.status, "none", START) is None
    assert ask(queries.committed, "none") is None
    assert ask(naming.batch_names) == []


async def test_status_counts_current_jobs_and_all_money(ledger: Ledger, ask: Ask) -> None:
    one, two = await with_jobs(ledger, [spec("a"), spec("b")])
    await drive(ledger, one, *path_to(State.RUNNING))
    await with_jobs(ledger, [spec("a", prompt="new", credits=None)])
    found = ask(queries.status, "night", START)
    assert found["jobs"] == 1
    assert found["states"]["pending"] == 1
    assert found["old"] == {"running": 1, "pending": 1}
    assert found["credits"] == {"spent": 0, "reserved": 630, "at_risk": 0, "estimated": 0, "max": None}
    assert ask(queries.committed, "night") == 630
    assert two.key == "b-1"


# --- jobs ------------------------------------------------------------------------------------------------

KEYS = [
    "job",
    "batch",
    "shot",
    "take",
    "matrix",
    "tags",
    "model",
    "request",
    "state",
    "task_id",
    "attempts",
    "credits",
    "error",
    "output",
    "sha256",
    "bytes",
    "current",
]


async def test_jobs_have_the_keys_of_the_contract(ledger: Ledger, ask: Ask) -> None:
    await in_every_state(ledger)
    found = ask(described.jobs)
    assert list(found[0])[: len(KEYS)] == KEYS
    assert [j["state"] for j in found] == [s.value for s in State]
    json.dumps(found)


COSTS: list[tuple[tuple[e.Event, ...], int]] = [
    ((), 0),
    ((e.Claimed(),), 630),
    ((e.Claimed(), e.NotSent(SEEN)), 0),
    ((e.Claimed(), e.Throttled(SEEN)), 0),
    ((e.Claimed(), e.Rejected(SEEN)), 0),
    ((e.Claimed(), e.Accepted("t")), 630),
    ((e.Claimed(), e.Accepted("t"), e.TaskFailed(SEEN)), 0),
    ((e.Claimed(), e.Accepted("t"), e.TaskFailed(SEEN, again=True), e.Claimed(), e.Accepted("u")), 630),
    ((e.Claimed(), e.Accepted("t"), e.Completed(())), 630),
    ((e.Claimed(), e.Accepted("t"), e.Completed((), credits=640)), 640),
    ((e.Claimed(), e.Accepted("t"), e.Vanished(SEEN)), 630),
    ((e.Claimed(), e.Ambiguous(SEEN)), 630),
    ((e.Claimed(), e.Ambiguous(SEEN), e.Abandoned("me")), 630),
    ((e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me")), 630),
    ((e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me"), e.Claimed(), e.Accepted("t")), 1260),
    ((e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me"), e.Claimed(), e.Rejected(SEEN)), 630),
]


@pytest.mark.parametrize(
    ("events", "credits"),
    COSTS,
    ids=lambda v: "-".join(type(x).__name__ for x in v) if isinstance(v, tuple) else str(v),
)
async def test_what_a_job_has_cost(ledger: Ledger, ask: Ask, events: tuple[e.Event, ...], credits: int) -> None:  # noqa: A002
    (job,) = await with_jobs(ledger, [spec()])
    job = await drive(ledger, job, *events)
    (found,) = ask(described.jobs)
    assert found["credits"] == credits == ask(queries.committed, "night")
    assert found["attempts"] == job.fact.attempt


async def test_errors(ledger: Ledger, ask: Ask) -> None:
    await in_every_state(ledger)
    errors = {j["state"]: j["error"] for j in ask(described.jobs)}
    assert errors.pop("failed") == {"kind": "rejected", "code": 40000, "message": "no", "request_id": "req_2"}
    assert errors.pop("unconfirmed") == {"kind": "ambiguous", "code": "reset", "message": "reset", "request_id": None}
    assert set(errors.values()) == {None}


async def test_a_job_as_it_stands(ledger: Ledger, ask: Ask) -> None:
    (job,) = await with_jobs(ledger, [spec(matrix={"n": 5, "on": True}, tags=["x"])])
    await drive(ledger, job, *path_to(State.SUCCEEDED))
    (found,) = ask(described.jobs)
    assert found["matrix"] == {"n": 5, "on": True}
    assert found["tags"] == ["x"]
    assert found["request"] == {"model": "kling-3-0-turbo", "prompt": "a dog", "duration": 5}
    assert (found["task_id"], found["output"], found["sha256"], found["bytes"]) == ("task_1", "/out/a.mp4", "0" * 64, 3)
    assert found["current"] is True


async def test_jobs_in_order_old_revisions_last_and_filters(ledger: Ledger, ask: Ask) -> None:
    first, _ = await with_jobs(ledger, [spec("a"), spec("b", tags=["x"])])
    await drive(ledger, first, *path_to(State.RUNNING))
    await with_jobs(ledger, [spec("b", tags=["x"]), spec("a", prompt="new")])
    await with_jobs(ledger, [spec("c")], name="other", output_dir="/o")

    def keys(*args: Any) -> list[tuple[str, int, bool]]:
        return [(j["job"], j["revision"], j["current"]) for j in ask(described.jobs, *args)]

    assert keys() == [("b-1", 1, True), ("a-1", 2, True), ("a-1", 1, False), ("c-1", 1, True)]
    assert keys("other") == [("c-1", 1, True)]
    assert keys("night", ["running"]) == [("a-1", 1, False)]
    assert keys(None, ["running", "pending"], Selection(only=("a", "c*"))) == [
        ("a-1", 2, True),
        ("a-1", 1, False),
        ("c-1", 1, True),
    ]
    assert keys(None, (), Selection(tags=("x",))) == [("b-1", 1, True)]
    assert keys("none") == []


# --- show ------------------------------------------------------------------------------------------------


async def test_show(ledger: Ledger, ask: Ask) -> None:
    (old,) = await with_jobs(ledger, [spec()])
    await drive(ledger, old, e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me", "go"), e.Claimed(), e.Accepted("t"))
    await with_jobs(ledger, [spec(prompt="new")])
    found = ask(described.show, old.id)
    json.dumps(found)
    assert set(KEYS) < set(found)
    assert (found["planned_output"], found["renewals"], len(found["fingerprint"])) == ("dog-1.mp4", 0, 32)
    assert [(a["number"], a["money"], a["outcome"], a["consent"], a["request_id"]) for a in found["attempt_list"]] == [
        (1, "at_risk", "ambiguous", "me: go", "req_7"),
        (2, "reserved", "accepted", None, None),
    ]
    assert not {"job_id", "batch_id"} & set(found["attempt_list"][0])
    assert [(h["from"], h["to"], h["event"], h["who"]) for h in found["history"]] == [
        (None, "pending", "recorded", ""),
        ("pending", "submitting", "claimed", ""),
        ("submitting", "unconfirmed", "ambiguous", ""),
        ("unconfirmed", "pending", "resubmitted", "me"),
        ("pending", "submitting", "claimed", ""),
        ("submitting", "running", "accepted", ""),
    ]
    assert [(h["attempt"], h["reason"]) for h in found["history"]][2:4] == [
        (1, "reset; code reset; HTTP 502; request req_7"),
        (1, "go"),
    ]
    assert found["revisions"] == [
        {"revision": 1, "state": "running", "current": False},
        {"revision": 2, "state": "pending", "current": True},
    ]
    assert ask(described.revision_of, old.id, 2) == 2
    assert ask(described.revision_of, old.id, 3) is None


# --- For the run and the plan ----------------------------------------------------------------------------


async def test_selected_states(ledger: Ledger, ask: Ask) -> None:
    jobs = await in_every_state(ledger)
    everything = dict.fromkeys(State, 1)
    assert ask(queries.selected_states, [1], Selection()) == (everything, {})
    assert ask(queries.selected_states, [], Selection()) == ({}, {})
    assert ask(queries.selected_states, [1], Selection(only=("s0",))) == ({State.PENDING: 1}, {})
    await with_jobs(ledger, [spec("s0", prompt="new")])
    live = {State.SUBMITTING: 1, State.UNCONFIRMED: 1, State.RUNNING: 1, State.DOWNLOADING: 1}
    assert ask(queries.selected_states, [1], Selection()) == ({State.PENDING: 1}, live)
    assert jobs[State.PENDING].key == "s0-1"


async def test_unsent_outputs(ledger: Ledger, ask: Ask) -> None:
    one, two = await with_jobs(ledger, [spec("a", tags=["x"]), spec("b", named=False, output="b")])
    one = await drive(ledger, one, e.Claimed(), e.Accepted("t1"), e.TaskFailed(SEEN, again=True))
    rows = {r["id"]: r for r in ask(queries.unsent_outputs, [1], Selection(), None, 99)}
    assert set(rows) == {one.id, two.id}
    assert (rows[one.id]["output"], rows[one.id]["named"], rows[one.id]["output_dir"]) == ("a-1.mp4", 1, "/out/night")
    assert json.loads(rows[one.id]["task_ids"]) == ["t1"]
    assert (rows[two.id]["output"], rows[two.id]["named"], json.loads(rows[two.id]["task_ids"])) == ("b", 0, [])
    assert [r["id"] for r in ask(queries.unsent_outputs, [1], Selection(tags=("x",)), None, 99)] == [one.id]
    await drive(ledger, one, e.Claimed())
    assert [r["id"] for r in ask(queries.unsent_outputs, [1], Selection(), None, 99)] == [two.id]
    await with_jobs(ledger, [])
    assert ask(queries.unsent_outputs, [1], Selection(), None, 99) == []


async def test_unsent_outputs_a_page_at_a_time(ledger: Ledger, ask: Ask) -> None:
    """In the manifest's order, batch after batch, where two jobs stand in one place (a final and a draft) too."""
    await with_jobs(ledger, [spec(f"s{n}") for n in (3, 0, 4, 1, 2)])
    await with_jobs(ledger, [spec(f"s{n}") for n in range(5)])
    await with_jobs(ledger, [spec("other")], name="other", output_dir="/o")
    await with_jobs(ledger, [spec(f"t{n}") for n in range(3)], name="third", output_dir="/t")
    moved = "UPDATE job SET position = 1 WHERE key IN ('s1-1', 's2-1', 's3-1')"
    await ledger._writer.put(lambda c: c.execute(moved) and None)
    ids = [b.id for b in await ledger.batches(["third", "night"])]
    for size in (1, 2, 3, 4, 8, 9):
        found: list[Any] = []
        while page := ask(queries.unsent_outputs, ids, Selection(), found[-1] if found else None, size):
            assert len(page) <= size
            found += page
        assert [r["output"].removesuffix("-1.mp4") for r in found] == ["s0", "s3", "s1", "s2", "s4", "t0", "t1", "t2"]


async def test_known_jobs_and_folders(ledger: Ledger, ask: Ask) -> None:
    await with_jobs(ledger, [spec("a"), spec("b")])
    await with_jobs(ledger, [spec("a", prompt="new")])
    await with_jobs(ledger, [spec("c")], name="other", output_dir="/o")
    found = ask(queries.known_jobs, "night")
    assert {k: [(r["revision"], r["current"]) for r in v] for k, v in found.items()} == {
        "a-1": [(1, 0), (2, 1)],
        "b-1": [(1, 0)],
    }
    assert ask(queries.known_jobs, "none") == {}
    assert ask(queries.output_folders, 10) == ["/o", "/out/night"]
    assert ask(queries.output_folders, 1) == ["/o"]
    assert ask(naming.batch_names) == ["night", "other"]


# --- Names on a command line -----------------------------------------------------------------------------


def keys(rows: list[sqlite3.Row]) -> list[tuple[str, int]]:
    return [(f"{r['batch']}/{r['key']}", r["revision"]) for r in rows]


async def _two_batches(ledger: Ledger) -> None:
    await with_jobs(ledger, [spec("a"), spec("b"), spec("only")])
    await with_jobs(ledger, [spec("b"), spec("x"), spec("a", prompt="new"), spec("only")])
    await with_jobs(ledger, [spec("a"), spec("z")], name="other", output_dir="/o")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("z-1", [("other/z-1", 1)]),
        ("night/a-1", [("night/a-1", 2)]),
        ("other/a-1", [("other/a-1", 1)]),
        ("only-1", [("night/only-1", 1)]),
        (
            "*-1",
            [
                ("night/b-1", 1),
                ("night/x-1", 1),
                ("night/a-1", 2),
                ("night/only-1", 1),
                ("other/a-1", 1),
                ("other/z-1", 1),
            ],
        ),
        ("other/*", [("other/a-1", 1), ("other/z-1", 1)]),
        ("n*/[ab]-?", [("night/b-1", 1), ("night/a-1", 2)]),
    ],
)
async def test_find_jobs(ledger: Ledger, ask: Ask, name: str, found: list[tuple[str, int]]) -> None:
    await _two_batches(ledger)
    assert keys(ask(naming.find_jobs, name)) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a-1", "^a-1 stands in several batches; say which: (night/a-1, other/a-1|other/a-1, night/a-1)$"),
        ("onli-1", "^no job onli-1; did you mean only-1\\?$"),
        ("qqqqqqqq", "^no job qqqqqqqq; `batchrunner jobs` lists them$"),
        ("none/a-1", "^no job none/a-1"),
        ("q*", "^no job q\\*"),
    ],
)
async def test_find_jobs_that_are_not_there(ledger: Ledger, ask: Ask, name: str, message: str) -> None:
    await _two_batches(ledger)
    with pytest.raises(naming.Unknown, match=message):
        ask(naming.find_jobs, name)


async def test_a_key_whose_position_changed_names_the_current_revision(ledger: Ledger, ask: Ask) -> None:
    await with_jobs(ledger, [spec("a"), spec("b")])
    await with_jobs(ledger, [spec("b"), spec("a", prompt="new")])
    assert keys(ask(naming.find_jobs, "a-1")) == [("night/a-1", 2)]
    await with_jobs(ledger, [spec("b")])
    assert keys(ask(naming.find_jobs, "a-1")) == [("night/a-1", 2)]  # none is current: the newest
    with pytest.raises(naming.Unknown):
        ask(naming.find_jobs, "a*")
    assert keys(ask(naming.find_jobs, "a*", any_revision=True)) == [("night/a-1", 1), ("night/a-1", 2)]


async def test_find_named(ledger: Ledger, ask: Ask) -> None:
    await _two_batches(ledger)
    found = ask(naming.find_named, "night")
    assert (keys(found.rows), found.exact) == (
        [("night/b-1", 1), ("night/x-1", 1), ("night/a-1", 2), ("night/only-1", 1)],
        False,
    )
    assert (keys(ask(naming.find_named, "z-1").rows), ask(naming.find_named, "z-1").exact) == ([("other/z-1", 1)], True)
    assert ask(naming.find_named, "z*").exact is False
    with pytest.raises(naming.Unknown, match=r"^no batch or job nihgt; did you mean the batch night\?$"):
        ask(naming.find_named, "nihgt")
    with pytest.raises(naming.Unknown, match=r"^no batch and no job qqqqqq"):
        ask(naming.find_named, "qqqqqq")
    await with_jobs(ledger, [spec("q")], name="z-1", output_dir="/q")
    with pytest.raises(naming.Unknown, match=r"^z-1 is both a batch and a job"):
        ask(naming.find_named, "z-1")


async def test_find_unconfirmed(ledger: Ledger, ask: Ask) -> None:
    (old,) = await with_jobs(ledger, [spec("a")])
    await drive(ledger, old, *path_to(State.UNCONFIRMED))
    assert keys(ask(naming.find_unconfirmed, "a-1")) == [("night/a-1", 1)]
    _, new, _ = await with_jobs(ledger, [spec("a", prompt="2"), spec("b")])
    assert keys(ask(naming.find_unconfirmed, "a-1")) == [("night/a-1", 1)]
    await drive(ledger, new, *path_to(State.UNCONFIRMED))
    with pytest.raises(naming.Unknown, match="a-1 has 2 unconfirmed revisions; say which with --revision: 1, 2"):
        ask(naming.find_unconfirmed, "a-1")
    assert keys(ask(naming.find_unconfirmed, "a-1", 1)) == [("night/a-1", 1)]
    assert keys(ask(naming.find_unconfirmed, "a*")) == [("night/a-1", 1), ("night/a-1", 2)]
    with pytest.raises(naming.Unknown, match=r"^b-1 is pending, not unconfirmed; "):
        ask(naming.find_unconfirmed, "b-1")
    with pytest.raises(naming.Unknown, match=r"^b\* names no unconfirmed job; "):
        ask(naming.find_unconfirmed, "b*")
    with pytest.raises(naming.Unknown, match=r"^no job c-1"):
        ask(naming.find_unconfirmed, "c-1")
    (other,) = await with_jobs(ledger, [spec("a")], name="other", output_dir="/o")
    await drive(ledger, other, *path_to(State.UNCONFIRMED))
    with pytest.raises(naming.Unknown, match=r"a-1 stands in several batches; say which: night/a-1, other/a-1$"):
        ask(naming.find_unconfirmed, "a-1")
    assert keys(ask(naming.find_unconfirmed, "other/a-1")) == [("other/a-1", 1)]
    assert keys(ask(naming.find_unconfirmed, "o*/a*")) == [("other/a-1", 1)]


async def test_find_batch(ledger: Ledger, ask: Ask) -> None:
    with pytest.raises(naming.Unknown, match=r"^no batch night$"):
        await ledger.query(lambda c: naming.find_batch(c, "night"))
    await _two_batches(ledger)
    assert ask(naming.find_batch, "night")["id"] == 1
    with pytest.raises(naming.Unknown, match=r"^no batch nigth; did you mean night\?$"):
        ask(naming.find_batch, "nigth")
    with pytest.raises(naming.Unknown, match=r"^no batch qqqq; there are: night, other$"):
        ask(naming.find_batch, "qqqq")
