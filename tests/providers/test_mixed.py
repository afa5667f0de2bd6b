"""One run over several providers: what each does to its own jobs, and to nobody else's."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchrunner import plugins
from batchrunner.catalogue import models
from batchrunner.engine.control import Branch, Control, Stop
from batchrunner.engine.slots import Allowance, Slots, Total
from batchrunner.manifest import ManifestError, load
from batchrunner.simulator import Simulator, SimulatorSettings
from tests.providers.plugin import write_model
from tests.providers.wordings import WORDINGS
from tests.raw_server import RawServer, Request, http, keep
from tests.support import FakeClock

ROOT = Path(__file__).parents[2]
MANIFEST = """\
version: 1
batch: mix
defaults: {prompt: a dog}
budget: {max_credits: 9000}
limits: {in_flight: 3}
prices: {minimax/video-01-director: {per: output, usd: 0.5}}
shots:
  - {id: turbo, model: kling-3-0-turbo, duration: 5}
  - {id: wan, model: wan2.7-video, duration: 5}
  - {id: gpt, model: gpt-image-2, takes: 8}
  - {id: still, model: z-image}
  - {id: flux, model: black-forest-labs/flux-schnell, num_outputs: 2}
  - {id: more, model: black-forest-labs/flux-schnell, takes: 8}
  - {id: cam, model: minimax/video-01-director, first_frame: "${shots.still.output_url}"}
  - {id: schnell, model: fal-ai/flux/schnell}
  - {id: fast, model: fal-ai/flux/schnell, takes: 8}
  - {id: k25, model: fal-ai/kling-video/v2.5-turbo/pro/image-to-video, first_frame: "${shots.schnell.output_url}"}
  - {id: end, model: grok-imagine-1.0-video, first_frame: "${shots.flux.output_url}"}
"""
"""Three providers, nine models, and chains across them."""


NOWHERE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


async def call(
    folder: Path, *words: str, dying: tuple[str, int] | None = None, where: Mapping[str, str] = NOWHERE
) -> Ran:
    """The real command line; where told so, one with quick polls that dies at the n-th pass of a step."""
    program = ["batchrunner"] if dying is None else ["tests.providers.dying", dying[0], str(dying[1])]
    kept = {n: v for n, v in os.environ.items() if n not in plugins.key_variables()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *program,
        *words,
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **where},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def access(**urls: str) -> dict[str, str]:
    """The environment that leads each provider to a server, by its name."""
    found: dict[str, str] = {}
    for name, url in urls.items():
        kind = plugins.load(name)
        found |= {kind.base_variable: url, kind.keys[0]: "rk_mixed"}
    return found


def jobs_of(ran: Ran) -> dict[str, dict[str, object]]:
    return {job["job"]: job for job in json.loads(ran.out)}


NEVER = ("nothing", 1)
KILLS = (
    ("start.bound", 2),
    ("submit.intent", 1),
    ("submit.recorded", 1),
    ("poll.answered", 1),
    ("poll.recorded", 1),
    ("download.fetched", 1),
    ("place.renamed", 1),
    ("download.placed", 1),
    ("download.recorded", 1),
    ("submit.answered", 2),
)


async def test_a_mixed_manifest_is_killed_ten_times_and_each_account_is_exact(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MANIFEST, "utf-8")
    used = {job.model: job.provider for job in load(tmp_path / "m.yaml").jobs}
    assert (len(used), set(used.values())) == (9, set(plugins.SHIPPED))
    async with Simulator(SimulatorSettings(median_seconds=0.05, sigma=0.0, clips="tiny")) as simulator:
        where = access(**dict.fromkeys(plugins.SHIPPED, simulator.url))
        deaths = 0
        for point, count in KILLS:
            ran = await call(tmp_path, "run", "m.yaml", dying=(point, count), where=where)
            deaths += ran.code == 9
            assert ran.code in {0, 3, 4, 9}, ran.err
        last = await call(tmp_path, "run", "m.yaml", dying=NEVER, where=where)
        found = jobs_of(await call(tmp_path, "jobs", "mix", "--json"))
        status = json.loads((await call(tmp_path, "status", "mix", "--json")).out)
        account = simulator.account()
    assert deaths == len(KILLS)
    held = {key for key, job in found.items() if job["state"] == "unconfirmed"}
    assert held, "a death after an intent leaves a doubt"
    assert last.code == 3, last.err
    sent = Counter(task["label"] for task in account["tasks"])
    assert max(sent.values()) == 1, "a job was paid for twice"
    attempts = {key: job["attempts"] for key, job in found.items()}
    for key, job in found.items():
        if job["state"] == "succeeded":
            assert (sent[key], attempts[key]) == (1, 1)
    charged: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for task in account["tasks"]:
        if task["label"] not in held:
            charged[models()[task["model"]].provider] += task["credits"]
    with closing(sqlite3.connect(tmp_path / "batchrunner.db")) as ledger:
        for provider, credits_ in ledger.execute(
            "SELECT job.provider, sum(attempt.credits) FROM attempt JOIN job ON job.id = attempt.job_id "
            "WHERE money = 'spent' GROUP BY 1"
        ):
            spent[provider] = credits_
        bound = dict(ledger.execute("SELECT provider, origin FROM account"))
    unpriced = {key for key, job in found.items() if job["model"] == "minimax/video-01-director"}
    spent["replicate"] -= 500 * len(unpriced - held)  # the manifest's price; the simulator knows none
    assert +spent == +charged
    assert bound == dict.fromkeys(plugins.SHIPPED, "a server on this machine")
    credits_now = status["credits"]
    assert credits_now["spent"] + credits_now["reserved"] + credits_now["at_risk"] <= 9000


SMALL = """\
version: 1
batch: mix
defaults: {prompt: a dog}
shots:
  - {id: good, model: z-image, takes: 3}
  - {id: bad, model: black-forest-labs/flux-schnell, takes: 7}
"""


@pytest.mark.parametrize(
    ("status", "posts", "code", "left", "said"),
    [
        (401, 1, 6, "pending", "replicate: what the service says"),
        (500, 3, 3, "unconfirmed", "replicate: 3 submissions in a row may or may not have been accepted"),
    ],
)
async def test_what_one_provider_refuses_stops_only_its_own(
    status: int, posts: int, code: int, left: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text(SMALL, "utf-8")
    words = WORDINGS["replicate"]

    def refuse(request: Request) -> bytes:
        del request
        return http(status, words.error(status))

    simulated = SimulatorSettings(median_seconds=0.05, sigma=0.0, clips="tiny")
    async with Simulator(simulated) as simulator, RawServer(keep(refuse)) as server:
        where = access(reapi=simulator.url, replicate=server.url)
        ran = await call(tmp_path, "run", "m.yaml", dying=NEVER, where=where)
        found = jobs_of(await call(tmp_path, "jobs", "mix", "--json"))
        assert simulator.account()["accepted"] == 3
    states = Counter((str(job["shot"]), str(job["state"])) for job in found.values())
    assert states["good", "succeeded"] == 3
    assert states["bad", left] >= posts
    assert len(server.requests) >= posts
    assert ran.code == code, ran.err
    assert said in ran.err + ran.out


async def test_without_the_key_of_one_nothing_is_sent_to_any(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(SMALL, "utf-8")
    async with Simulator() as simulator:
        ran = await call(tmp_path, "run", "m.yaml", where=access(reapi=simulator.url))
        assert (ran.code, simulator.account()["posts"]) == (2, 0)
    assert "set REPLICATE_API_TOKEN in the environment" in ran.err


async def test_the_limits_of_the_run_hold_over_all(tmp_path: Path) -> None:
    """`in_flight` counts the tasks of every provider, and `--limit` the submissions to any."""
    (tmp_path / "m.yaml").write_text(SMALL + "limits: {in_flight: 2}\n", "utf-8")
    async with Simulator(SimulatorSettings(median_seconds=0.2, sigma=0.0, clips="tiny")) as simulator:
        where = access(reapi=simulator.url, replicate=simulator.url)
        ran = await call(tmp_path, "run", "m.yaml", "--limit", "5", dying=NEVER, where=where)
        tasks = simulator.account()["tasks"]
    assert (ran.code, len(tasks)) == (4, 5)
    assert {models()[task["model"]].provider for task in tasks} == {"reapi", "replicate"}
    assert most_at_once(tasks) <= 2


BOUNDED = """\
version: 1
batch: mix
defaults: {prompt: a dog, takes: 4}
limits:
  in_flight: 8
  providers: {replicate: {in_flight: 2}}
  models: {z-image: {in_flight: 1}, fal-ai/flux/schnell: {submits_per_minute: 120}}
shots:
  - {id: z, model: z-image}
  - {id: gpt, model: gpt-image-2}
  - {id: rep, model: black-forest-labs/flux-schnell}
  - {id: flux, model: fal-ai/flux/schnell}
"""


def most_at_once(tasks: list[dict[str, Any]]) -> int:
    flying = most = 0
    for _, step in sorted([(t["created_at"], 1) for t in tasks] + [(t["due_at"], -1) for t in tasks]):
        flying += step
        most = max(most, flying)
    return most


async def test_providers_and_models_have_bounds_of_their_own(tmp_path: Path) -> None:
    """Also where the run goes on from the ledger alone; a full model holds nobody else up."""
    (tmp_path / "m.yaml").write_text(BOUNDED, "utf-8")
    async with Simulator(SimulatorSettings(median_seconds=0.3, sigma=0.0, clips="tiny")) as simulator:
        where = access(**dict.fromkeys(plugins.SHIPPED, simulator.url))
        first = await call(tmp_path, "run", "m.yaml", "--limit", "6", dying=NEVER, where=where)
        last = await call(tmp_path, "resume", dying=NEVER, where=where)
        tasks = simulator.account()["tasks"]
    assert (first.code, last.code, len(tasks)) == (4, 0, 16), last.err
    by_model: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        by_model.setdefault(task["model"], []).append(task)
    assert most_at_once(by_model["z-image"]) == 1
    assert most_at_once(by_model["black-forest-labs/flux-schnell"]) <= 2
    assert most_at_once(tasks) <= 8
    flux = sorted(task["created_at"] for task in by_model["fal-ai/flux/schnell"])
    assert flux[3] - flux[0] > 0.9  # 120 a minute are two a second, two at once
    z = sorted(task["created_at"] for task in by_model["z-image"])
    assert min(task["created_at"] for task in by_model["gpt-image-2"]) < z[1]


async def test_running_jobs_are_cancelled_where_the_service_can(tmp_path: Path) -> None:
    """The service is asked; a job stays running until a poll says how its task ended."""
    (tmp_path / "m.yaml").write_text(BOUNDED.replace("takes: 4", "takes: 1"), "utf-8")
    async with Simulator(SimulatorSettings(median_seconds=600.0, sigma=0.0, clips="tiny")) as simulator:
        where = access(**dict.fromkeys(plugins.SHIPPED, simulator.url))
        await call(tmp_path, "run", "m.yaml", dying=("submit.recorded", 4), where=where)
        before = jobs_of(await call(tmp_path, "jobs", "mix", "--json"))
        assert {job["state"] for job in before.values()} == {"running"}
        told = json.loads((await call(tmp_path, "cancel", "mix", "--json", where=where)).out)
        assert sorted(job["job"] for job in told["asked"]) == ["flux-1", "rep-1"]
        assert told["cancelled"] == []
        assert {job["job"]: job["why"] for job in told["skipped"]} == dict.fromkeys(("gpt-1", "z-1"), "is running")
        after = jobs_of(await call(tmp_path, "jobs", "mix", "--json"))
        assert {job["state"] for job in after.values()} == {"running"}
        again = await call(tmp_path, "cancel", "flux-1", where=where)
        assert "the wish came too late" in again.err + again.out
        await call(tmp_path, "run", "m.yaml", dying=("poll.recorded", 40), where=where)
        ended = jobs_of(await call(tmp_path, "jobs", "mix", "--json"))
    states = {key: job["state"] for key, job in ended.items()}
    assert states == {"z-1": "running", "gpt-1": "running", "rep-1": "failed", "flux-1": "failed"}
    error = ended["rep-1"]["error"]
    assert isinstance(error, dict)
    assert (error["kind"], error["code"]) == ("provider", "canceled")


async def test_a_task_of_a_model_of_ones_own_is_cancelled_too(tmp_path: Path) -> None:
    """fal keeps the tasks of each model apart: where, stands in the file that `--models` names."""
    write_model(tmp_path / "mine", "fal", "fal-ai/flux/mine", "fal-ai__flux__schnell")
    (tmp_path / "m.yaml").write_text(
        "version: 1\nbatch: mix\nshots: [{id: a, model: fal-ai/flux/mine, prompt: x}]\n", "utf-8"
    )
    async with Simulator(SimulatorSettings(median_seconds=600.0, sigma=0.0, clips="tiny")) as simulator:
        where = access(**dict.fromkeys(plugins.SHIPPED, simulator.url))
        await call(tmp_path, "run", "m.yaml", "--models", "mine", dying=("submit.recorded", 1), where=where)
        without = await call(tmp_path, "cancel", "a-1", where=where)
        assert "name the folder that describes it with --models DIR" in without.out
        told = await call(tmp_path, "cancel", "a-1", "--models", "mine", "--json", where=where)
    assert [job["job"] for job in json.loads(told.out)["asked"]] == ["a-1"], told.err


# --- The manifest ----------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    (folder / "m.yaml").write_text("version: 1\nbatch: b\n" + text, "utf-8")
    return folder / "m.yaml"


def test_a_shot_goes_to_the_service_of_its_model(tmp_path: Path) -> None:
    shots = "shots:\n  - {id: a, prompt: x, matrix: {model: [z-image, fal-ai/flux/schnell]}}\n"
    manifest = load(written(tmp_path, shots))
    assert [(job.provider, job.model) for job in manifest.jobs] == [
        ("reapi", "z-image"),
        ("fal", "fal-ai/flux/schnell"),
    ]
    assert manifest.providers == {"reapi", "fal"}
    assert len({job.key for job in manifest.jobs}) == 2
    assert all("/" not in job.key for job in manifest.jobs)


def test_a_provider_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    shots = "shots:\n  - {id: a, prompt: x, model: z-image}\n"
    with pytest.raises(ManifestError, match="z-image"):
        load(written(tmp_path, "provider: fal\n" + shots))
    assert load(written(tmp_path, "provider: reapi\n" + shots)).providers == {"reapi"}


@pytest.mark.parametrize("name", ["${model}", "clips/${model}-${take}"])
def test_a_model_with_a_slash_makes_no_folder_of_its_own_by_surprise(name: str, tmp_path: Path) -> None:
    """Whatever the template does with it, the path stays below the output folder."""
    shots = "shots:\n  - {id: a, prompt: x, model: fal-ai/flux/schnell}\n"
    manifest = load(written(tmp_path, f'output: {{name: "{name}"}}\n' + shots))
    for job in manifest.jobs:
        assert not job.output.startswith("/")
        assert ".." not in job.output.split("/")


# --- The switches ----------------------------------------------------------------------------------------


def switches(names: Mapping[str, float]) -> tuple[Control, dict[str, Branch], list[tuple[Stop, str]], FakeClock]:
    clock, told = FakeClock(), list[tuple[Stop, str]]()
    control = Control(clock, lambda: 0.5, lambda reason, text: told.append((reason, text)))  # type: ignore[arg-type]
    return control, {name: control.branch(name, hold) for name, hold in names.items()}, told, clock


def test_a_hold_concerns_one_account() -> None:
    _, found, _, _ = switches({"a": 0.0, "b": 7.0})
    assert (found["a"].hold(), found["b"].hold()) == (0.0, 7.0)
    found["a"].throttled(30.0)
    assert (found["a"].hold(), found["b"].hold()) == (30.0, 7.0)


@pytest.mark.parametrize("reason", [Stop.CREDENTIALS, Stop.UNREACHABLE, Stop.CREDIT, Stop.BREAKER, Stop.DEADLINE])
def test_a_stop_of_one_account_is_told_and_harms_nobody_else(reason: Stop) -> None:
    control, found, told, _ = switches({"a": 0.0, "b": 0.0})
    found["a"].halt(reason, "no")
    assert told == [(reason, "a: no")]
    assert (found["a"].submitting, found["b"].submitting, control.submitting) == (False, True, True)
    assert found["a"].ended == (reason in {Stop.CREDENTIALS, Stop.UNREACHABLE})
    assert not found["b"].ended
    assert not control.ended
    assert control.verdict() == (reason, "a: no")


def test_an_account_that_is_tried_again_begins_afresh() -> None:
    control, found, _, _ = switches({"a": 0.0, "b": 0.0})
    found["a"].silent("nobody")
    for _ in range(3):
        found["a"].ambiguous()
    assert (found["a"].own, found["a"].quiet() > 0.0) == (Stop.BREAKER, True)

    found["a"].again()

    assert (found["a"].submitting, found["a"].quiet(), control.verdict()) == (True, 0.0, (None, ""))
    found["a"].ambiguous()
    assert found["a"].submitting


def test_the_strongest_reason_is_the_runs() -> None:
    control, found, _, _ = switches({"a": 0.0, "b": 0.0})
    found["a"].halt(Stop.CREDIT, "no money")
    found["b"].halt(Stop.CREDENTIALS, "no key")
    found["b"].halt(Stop.CREDIT, "later")
    assert control.verdict() == (Stop.CREDENTIALS, "b: no key")
    found["a"].halt(Stop.DISK, "full")
    assert (control.stop, found["b"].submitting) == (Stop.DISK, False)


def test_what_concerns_the_run_stops_everybody() -> None:
    for reason in set(Stop) - {Stop.CREDENTIALS, Stop.UNREACHABLE, Stop.CREDIT, Stop.BREAKER, Stop.DEADLINE}:
        control, found, _, _ = switches({"a": 0.0, "b": 0.0})
        found["a"].halt(reason, "no")
        assert (control.stop, found["b"].submitting) == (reason, False)
    control, found, _, _ = switches({"a": 0.0})
    control.pause("me")
    assert found["a"].paused_by == "me"
    found["a"].bug(ValueError())
    assert control.ended
    assert found["a"].ended


def test_places_are_shared_but_not_with_the_dead() -> None:
    freed: list[int] = []
    total, dead = Total(3, lambda: freed.append(1)), [False]
    one = Slots(2, total=total, ended=lambda: dead[0])
    two = Slots(3, total=total)
    one.take()
    one.take()
    two.take()
    assert (one.free, two.free, two.all_used) == (False, False, 3)
    dead[0] = True  # nobody follows its tasks any more
    assert (two.free, two.all_used) == (True, 1)
    two.give_back()
    assert freed == [1]


def test_an_allowance_is_shared() -> None:
    allowance = Allowance(1)
    allowance.take()
    assert allowance.left == 0
    allowance.give_back()
    assert allowance.left == 1
    endless = Allowance(None)
    endless.take()
    endless.give_back()
    assert endless.left is None
