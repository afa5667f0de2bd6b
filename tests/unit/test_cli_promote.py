"""`approve`, `reject`, and what `promote` would do; that it does it is in `acceptance/test_promote.py`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import JobSpec, Output, State
from batchrunner.ledger.due import Batch
from batchrunner.manifest import load, load_profile
from batchrunner.planning import Funds, promotion_of
from tests.cli_support import Ran, call, make_ledger
from tests.support import FakeClock, open_ledger, path_to

TEXT = """\
version: 1
batch: night
vars: {size: 1080p}
defaults: {model: kling-3-0-turbo, duration: 5, resolution: 720p}
profiles:
  final: {resolution: "${size}", takes: 7, tags: [big]}
  draft: {resolution: 720p}
  wide: {aspect_ratio: 9:16, duration: 10}
shots:
  - {id: dog, prompt: "a dog for $${1}", takes: 2, tags: [hero]}
  - {id: cat, prompt: a cat, matrix: {duration: [5, 10]}}
"""
KEYS = ["dog-1", "dog-2", "cat@duration=5-1", "cat@duration=10-1"]


def done(spec: JobSpec, task: str) -> tuple[e.Event, ...]:
    """The way of a job to its own file."""
    *way, _ = path_to(State.SUCCEEDED, task)
    return (*way, e.Stored(Output(f"/out/{spec.output}", "0" * 64, 3)))


def record(manifest: Path, new: str = "", **states: State) -> None:
    """Record the manifest with every job done, but for the ones whose shot is named. `new`: only the jobs of this shot
    are, and nothing happens to the others."""
    found: list[tuple[JobSpec, tuple[e.Event, ...]]] = []
    for n, spec in enumerate(load(manifest).jobs):
        state = states.get(spec.shot, State.SUCCEEDED)
        events = done(spec, f"{new}{n}") if state is State.SUCCEEDED else path_to(state, f"{new}{n}")
        found.append((spec, events if new in ("", spec.shot) else ()))
    make_ledger(manifest.with_name("batchrunner.db"), found)


def would(*options: str, profile: str = "final") -> Ran:
    return call("promote", "night", "--profile", profile, "--manifest", "night.yaml", "--dry-run", *options)


def jobs(*options: str) -> dict[str, Any]:
    return {j["job"]: j for j in call("jobs", "--json", *options).json}


# --- approve and reject ----------------------------------------------------------------------------------


def test_the_newest_word_counts_and_every_word_is_kept(manifest: Path) -> None:
    record(manifest)
    ran = call("approve", "dog-1", "night/cat*", "--note", "the \u202elight", "--json")
    assert ran.json == {
        "approved": [{"batch": "night", "job": k} for k in ("dog-1", *KEYS[2:])],
        "skipped": [],
    }
    assert {key: job["verdict"] for key, job in jobs().items()} == {
        "dog-1": "approved",
        "dog-2": None,
        "cat@duration=5-1": "approved",
        "cat@duration=10-1": "approved",
    }
    assert call("approve", "dog-1").code == 0
    said = call("reject", "dog-1", "--note", "six legs")
    assert said.out == "  dog-1: rejected\n1 job rejected\n"
    shown = call("show", "dog-1", "--json").json
    assert [(v["verdict"], v["note"]) for v in shown["verdicts"]] == [
        ("approved", "the \u202elight"),
        ("rejected", "six legs"),
    ]
    assert all(v["who"] and v["at"] for v in shown["verdicts"])
    text = call("show", "dog-1").out
    assert "six legs" in text
    assert "the \\u202elight" in text
    assert list(jobs("--verdict", "approved")) == KEYS[2:]
    assert list(jobs("--verdict", "none", "--verdict", "rejected")) == ["dog-1", "dog-2"]
    assert "rejected: /out/dog-1" in call("jobs").out
    assert ",rejected,\r\n" in call("jobs", "--csv").out.replace("\r\r\n", "\r\n")


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED, State.RUNNING, State.UNCONFIRMED, State.CANCELLED])
def test_only_a_finished_clip_is_judged(manifest: Path, state: State) -> None:
    record(manifest, dog=state)
    for verb in ("approve", "reject"):
        ran = call(verb, "cat*", "dog-1")
        assert (ran.code, ran.out) == (2, "")
        assert f"dog-1 is {state}: only a finished clip can be {verb}" in ran.err
        assert "names no finished clip" in call(verb, "dog*").err
    assert list(jobs("--verdict", "none")) == KEYS, "nothing of a refused call is recorded"
    ran = call("approve", "*", "--json")
    assert [j["job"] for j in ran.json["approved"]] == KEYS[2:]
    assert [(s["job"], s["why"]) for s in ran.json["skipped"]] == [(k, f"is {state}") for k in KEYS[:2]]


def test_what_is_not_there_exits_2(manifest: Path) -> None:
    assert "no ledger" in call("approve", "dog-1").err
    assert "no ledger" in would().err
    record(manifest)
    for verb in ("approve", "reject"):
        ran = call(verb, "dog-1", "dgo-1")
        assert ran.code == 2
        assert "did you mean dog-1?" in ran.err
    assert list(jobs("--verdict", "none")) == KEYS


# --- promote ---------------------------------------------------------------------------------------------


def test_a_promotion_is_the_approved_request_with_the_profile_over_it(manifest: Path) -> None:
    record(manifest)
    call("approve", "*")
    call("reject", "dog-2")
    manifest.write_text(TEXT.replace("a dog", "a wolf").replace("a cat", "a lion"))
    ran = would("--json")
    assert ran.code == 0, ran.err
    assert ran.json["summary"] == {
        "new": 3,
        "changed": 0,
        "unchanged": 0,
        "in_flight": 0,
        "removed": 0,
        "credits": 788 + 788 + 1576,
        "usd": "3.152",
    }
    changed = {"resolution": {"from": "720p", "to": "1080p"}}
    assert [(j["job"], j["fields"]) for j in ran.json["jobs"]] == [
        (f"{key}@final", changed) for key in ("dog-1", *KEYS[2:])
    ]
    assert "3 new" in would().out
    assert list(jobs()) == KEYS, "a look records nothing"


def test_a_promotion_takes_the_limits_of_today(manifest: Path) -> None:
    record(manifest)
    call("approve", "dog-1")
    limits = "limits: {in_flight: 9, providers: {reapi: {in_flight: 2}}, models: {z-image: {submits_per_minute: 3}}}\n"
    manifest.write_text(TEXT.replace("shots:", limits + "shots:", 1))
    promotion = load_profile(manifest, "final", variables={})

    async def promoted() -> Batch:
        async with open_ledger(manifest.with_name("batchrunner.db"), FakeClock()) as ledger:
            await ledger.promote(await ledger.query(partial(promotion_of, promotion, None, "me")))
            return (await ledger.batches())[0]

    batch = asyncio.run(promoted())
    assert (batch.in_flight, batch.limits.providers["reapi"].in_flight) == (9, 2)
    assert batch.limits.models["z-image"].submits_per_minute == 3.0
    manifest.write_text(TEXT.replace("shots:", "limits: {providers: {reappi: {in_flight: 2}}}\nshots:", 1))
    wrong = would()
    assert (wrong.code, "unknown provider 'reappi' (did you mean reapi?)" in wrong.err) == (2, True)


def test_variables_reach_the_profile_and_nothing_else(manifest: Path) -> None:
    record(manifest)
    call("approve", "dog-1")
    assert would("--var", "size=1080p").code == 0
    assert "the manifest uses no such variable" in would("--var", "sise=1080p").err
    wrong = would("--var", "size=99p")
    assert (wrong.code, wrong.out) == (2, "")
    assert "dog-1: " in wrong.err
    assert "1080p" in wrong.err


def test_what_can_not_be_promoted_is_said_job_by_job(manifest: Path) -> None:
    record(manifest)
    assert "no job of night is approved; `batchrunner approve JOB` says which are" in would().err
    call("approve", "*")
    ran = would(profile="wide")
    assert ran.code == 2
    assert ran.err.splitlines()[1:] == [
        f"  {key}: profile wide sets duration, which is also a matrix axis; take it out of one of them"
        for key in KEYS[2:]
    ]
    assert "changes nothing: what was approved asks for the same already" in would(profile="draft").err
    assert "did you mean final?" in would(profile="fnal").err


def test_the_manifest_is_the_batchs_own(manifest: Path) -> None:
    record(manifest)
    call("approve", "dog-1")
    gone = call("promote", "night", "--profile", "final", "--dry-run")
    assert gone.code == 2
    assert "there is no manifest /m/manifest.yaml" in gone.err
    assert "with --manifest" in gone.err
    assert "no batch nihgt; did you mean night?" in call("promote", "nihgt", "--profile", "final").err
    manifest.write_text(TEXT.replace("batch: night", "batch: other"))
    assert "is the manifest of other, and not of night" in would().err
    manifest.write_text(TEXT.replace("resolution: 720p}\n", "resolution: 72p}\n", 1))
    broken = would()
    assert (broken.code, broken.out) == (2, "")
    assert broken.err.startswith("night.yaml:4:")


def test_a_look_asks_for_the_balance_where_there_is_a_key(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(manifest)
    call("approve", "dog-1")
    asked: list[Path] = []

    def told(db: Path, connection: object, providers: object) -> list[Funds]:
        asked.append(db)
        return [Funds("reapi", 700)]

    monkeypatch.setattr("batchrunner.cli.run.funds", told)
    ran = would("--json")
    assert ran.json["balance"] == 700
    assert "the account has 88 credits less than this costs" in ran.err
    assert would("--json", "--no-balance").json["balance"] is None
    assert asked == [manifest.with_name("batchrunner.db")]


def test_a_price_is_known_or_there_is_no_budget(manifest: Path) -> None:
    prices = "prices: {kling-3-0-turbo: {per: second, rates: [{when: {resolution: 720p}, usd: '0.1'}]}}\n"
    record(manifest)
    call("approve", "dog-1")
    manifest.write_text(TEXT + prices)
    unknown = would("--json")
    assert unknown.json["summary"]["credits"] is None
    assert "without a known price" in unknown.err
    manifest.write_text(TEXT + prices + "budget: {max_credits: 100}\n")
    assert "dog-1@final: no price is known, and there is a budget" in would().err


def test_an_edited_draft_is_no_winner_before_it_is_approved_anew(manifest: Path) -> None:
    record(manifest)
    call("approve", "dog-1", "cat*")
    manifest.write_text(TEXT.replace("a dog", "a wolf"))
    record(manifest, "dog")
    assert [j["job"] for j in would("--json").json["jobs"]] == [f"{key}@final" for key in KEYS[2:]]
    call("approve", "dog-1")
    (dog, *_) = would("--json").json["jobs"]
    assert dog["job"] == "dog-1@final"
    manifest.write_text(TEXT.replace("  - {id: cat", "  - {id: cow").replace("a cat", "a cow"))
    record(manifest, "nothing")
    found = [j["job"] for j in would("--json").json["jobs"]]
    assert "cat@duration=5-1@final" in found, "a shot that left the manifest keeps what a person said of it"
