"""Shots that use another's output: sent when it is there, with a URL that lives, and paid for once."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchrunner import app
from batchrunner.core.job import Job
from batchrunner.core.promotion import promoted
from batchrunner.core.selection import Selection
from batchrunner.engine import submit
from batchrunner.engine.control import Stop
from batchrunner.engine.offer import UPLOAD, offerer
from batchrunner.manifest import load, load_profile
from batchrunner.providers.fetch import Fetcher
from batchrunner.simulator import Simulator, SimulatorSettings, parse_faults
from tests import cli_support
from tests.acceptance.test_kill import simulated
from tests.cli_support import Ran
from tests.crash.checks import Books
from tests.crash.command_line import CommandLine
from tests.crash.workspace import SETTINGS
from tests.double import ALWAYS, Double, Plan, Rule

HEAD = """\
version: 1
batch: night
defaults: {duration: 5}
limits: {submits_per_minute: 60000}
output: {dir: out}
profiles: {final: {resolution: 1080p}}
"""
STILL = "  - {id: still, model: gpt-image-2, prompt: a corgi, aspect_ratio: 16:9}\n"
RUN = (
    "  - {id: run, model: doubao-seedance-2.0, prompt: it runs, return_last_frame: true, "
    'first_frame: "${shots.still.output_url}"}\n'
)
SWIM = '  - {id: swim, model: kling-3-0-turbo, prompt: it swims, first_frame: "${shots.run.last_frame_url}"}\n'
CHAIN = STILL + RUN + SWIM
PRICE = 30 + 519 + 630
QUICK = SimulatorSettings(median_seconds=0.02, sigma=0, clips="tiny")


def call(*words: str) -> Ran:
    """A verb that asks nobody else, outside of the test's own event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(cli_support.call, *words).result()


def plan(*words: str) -> Ran:
    return call("plan", "night.yaml", "--no-balance", *words)


class Told(app.Watcher):
    """Remembers what happened: (event, key)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        self.events.append((name, job.key if job is not None else ""))


class Place:
    """A folder with a manifest, and a simulator that runs beside it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.db = folder / "batchrunner.db"
        self._monkeypatch = monkeypatch
        self.told = Told()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("REAPI_API_KEY", "rk_chains")

    def write(self, shots: str = CHAIN) -> None:
        (self.folder / "night.yaml").write_text(f"{HEAD}shots:\n{shots}")

    @asynccontextmanager
    async def service(self, *faults: str, **settings: Any) -> AsyncIterator[Simulator]:
        """The service, with the account that it had before, on a port that it had not."""
        state = self.folder / "account"
        simulator = Simulator(replace(QUICK, state=state, faults=parse_faults(faults), **settings))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._monkeypatch.setenv("REAPI_BASE_URL", await simulator.start(port=port))
        try:
            yield simulator
        finally:
            await simulator.stop()

    async def run(self, *only: str, settings: app.Settings = SETTINGS, **options: Any) -> app.RunResult:
        manifests = [load(self.folder / "night.yaml")]
        asked = app.RunOptions(db=self.db, manifests=manifests, selection=Selection(only), settings=settings)
        self.told = Told()
        return await app.run_here(replace(asked, **options), self.told)

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The current jobs, by key."""
        found: Ran = call("jobs", "night", "--json")
        return {j["job"]: j for j in found.json if j["current"]}

    def states(self) -> dict[str, str]:
        return {key: job["state"] for key, job in self.jobs.items()}

    def sent(self, key: str) -> Any:
        """The request of a job's last attempt, as `show` has it."""
        return call("show", key, "--json").json["attempt_list"][-1]["request"]

    @property
    def books(self) -> Books:
        return Books(self.db, self.folder / "copy")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    here = Place(tmp_path, monkeypatch)
    here.write()
    return here


def tasks(simulator: Simulator) -> dict[str, dict[str, Any]]:
    """Label to task; every job has one at most."""
    rows = simulator.account()["tasks"]
    assert len({row["label"] for row in rows}) == len(rows), "nothing was accepted twice"
    return {row["label"]: row for row in rows}


async def test_a_chain_of_three_is_sent_link_by_link_each_with_the_output_before_it(place: Place) -> None:
    async with place.service() as simulator:
        result = await place.run()
        account, known = simulator.account(), tasks(simulator)

    assert (result.exit_code, result.stop) == (0, None)
    assert set(place.states().values()) == {"succeeded"}
    assert {key: row["uses"] for key, row in known.items()} == {
        "still-1": [],
        "run-1": [known["still-1"]["id"]],
        "swim-1": [known["run-1"]["id"]],
    }
    assert (account["posts"], account["charged"], account["rejected"]) == (3, PRICE, 0)
    order = [key for name, key in place.told.events if name in {"stored", "claimed"}]
    assert order == ["still-1", "still-1", "run-1", "run-1", "swim-1", "swim-1"]
    frame = place.sent("swim-1")["first_frame_image"]
    assert f"/media/tasks/{known['run-1']['id']}/last.png" in frame
    sidecar = json.loads(Path(place.jobs["swim-1"]["output"] + ".json").read_text())
    assert sidecar["request"] == place.sent("swim-1")
    assert place.jobs["swim-1"]["request"]["first_frame_image"] == "${shots.run-1.last_frame_url}"
    assert place.jobs["swim-1"]["needs"] == [{"job": "run-1", "state": "succeeded", "problem": None}]
    assert frame in call("show", "swim-1").out
    assert plan("--json").json["summary"]["unchanged"] == 3


async def test_a_url_of_an_earlier_night_is_renewed_by_a_free_poll(place: Place) -> None:
    """The server comes back on another port: what was noted of its URLs leads nowhere."""
    async with place.service():
        assert (await place.run("still")).exit_code == 0
    async with place.service() as simulator:
        polls = simulator.account()["polls"]
        result = await place.run()
        account, known = simulator.account(), tasks(simulator)

    assert result.exit_code == 0
    assert known["run-1"]["uses"] == [known["still-1"]["id"]]
    assert known["still-1"]["polls"] > 0
    assert (account["accepted"], account["charged"]) == (3, PRICE)
    assert account["polls"] > polls


async def test_a_service_that_is_away_for_a_while_is_waited_for(place: Place) -> None:
    async with place.service():
        assert (await place.run("still")).exit_code == 0
    async with place.service("poll500=next:2", "poll_throttle=next:1:0") as simulator:
        assert (await place.run()).exit_code == 0
        assert ("held", "run-1") not in place.told.events
        assert simulator.account()["accepted"] == 3


async def test_an_output_that_can_not_be_had_holds_its_child_and_costs_nothing(place: Place) -> None:
    async with place.service(url_ttl=0.3):
        assert (await place.run("still")).exit_code == 0
    async with place.service(renew_urls=False, url_ttl=0.0) as simulator:
        result = await place.run()
        account = simulator.account()

    assert (result.exit_code, result.stop) == (4, Stop.NEEDS)
    assert place.states() == {"still-1": "succeeded", "run-1": "pending", "swim-1": "pending"}
    why = place.jobs["run-1"]["waits_for"]
    assert why.startswith("still-1: its URL has expired, and the service gives no live one")
    assert why in call("jobs", "night").out
    assert why in call("show", "run-1").out
    assert why in result.message
    assert ("held", "run-1") in place.told.events
    assert (account["posts"], account["accepted"]) == (1, 1)

    async with place.service() as simulator:  # it gives live ones again
        assert (await place.run()).exit_code == 0
        assert tasks(simulator)["run-1"]["uses"] == [tasks(simulator)["still-1"]["id"]]
    assert place.jobs["run-1"]["waits_for"] is None


SERVE = """
import http.server, os, sys
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def test_a_file_is_offered_by_the_upload_command_where_no_url_lives(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double's first clip can be fetched once, and never again."""
    shots = (
        "  - {id: a, model: kling-3-0-turbo, prompt: a dog}\n"
        '  - {id: b, model: kling-3-0-turbo, prompt: it runs, first_frame: "${shots.a.output_url}"}\n'
    )
    (tmp_path / "night.yaml").write_text(f"{HEAD}shots:\n{shots}")
    name = "upload" + str(abs(hash(tmp_path)))
    door = double.open(name, Plan([Rule("media", "gone", first=2, last=ALWAYS)], polls=1))
    monkeypatch.setenv("BATCHRUNNER_DB", str(tmp_path / "l.db"))
    for variable, value in door.environment.items():
        monkeypatch.setenv(variable, value)
    with subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, stderr=-3) as server:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        monkeypatch.setenv(
            UPLOAD, f"{sys.executable} -c \"import sys; print('{base}/out/' + sys.argv[1].split('/')[-1])\""
        )
        try:
            asked = app.RunOptions(tmp_path / "l.db", [load(tmp_path / "night.yaml")], settings=SETTINGS)
            result = app.run(asked, app.Watcher())
        finally:
            server.kill()

    account = double.account(name)
    assert result.exit_code == 0, result.message
    assert [p.label for p in account.posts] == ["a-1", "b-1"]
    sent = call("show", "b-1", "--json").json["attempt_list"][-1]["request"]
    assert sent["first_frame_image"] == f"{base}/out/a-1.mp4"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false", "the upload command false: ended with 1"),
        ("no-such-program-anywhere", "No such file"),
        ("true", "printed no URL"),
        ("echo http://169.254.169.254/latest", "can't be used: the URL"),
        ("echo file:///etc/passwd", "can't be used: the URL"),
    ],
)
async def test_an_upload_that_gives_no_url_holds_the_child(
    place: Place, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    place.write(STILL + RUN)
    async with place.service():
        assert (await place.run("still")).exit_code == 0
    monkeypatch.setenv(UPLOAD, command)
    async with place.service(renew_urls=False, url_ttl=0.0) as simulator:
        result = await place.run()
        assert simulator.account()["accepted"] == 1

    assert result.exit_code == 4
    assert said in place.jobs["run-1"]["waits_for"]


async def test_an_upload_command_is_refused_before_anything_is_sent_if_it_is_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UPLOAD, "upload 'it")
    async with place.service() as simulator:
        with pytest.raises(app.UsageError, match="BATCHRUNNER_UPLOAD is no command line"):
            await place.run()
        assert simulator.account()["posts"] == 0


async def test_a_failed_parent_leaves_its_descendants_pending_with_the_reason(place: Place) -> None:
    async with place.service("moderate=next:1") as simulator:
        result = await place.run()
        assert simulator.account()["posts"] == 1
        assert (result.exit_code, result.stop) == (4, Stop.NEEDS)
        assert place.states() == {"still-1": "failed", "run-1": "pending", "swim-1": "pending"}
        assert place.jobs["run-1"]["waits_for"] == "still-1, which is failed (moderated)"
        assert place.jobs["swim-1"]["waits_for"] == "run-1, which is pending"
        assert call("status", "night", "--json").json["waiting"] == 2
        assert "2 wait for the output of others" in call("status", "night").out
        assert call("report", "night").code == 0
        page = (place.folder / "out/report.html").read_text()
        assert "2 jobs wait for the output of these" in page
        assert "waits for still-1, which is failed (moderated)" in page

        assert call("retry", "still-1").code == 0
        assert (await place.run()).exit_code == 0
        account = simulator.account()
    assert (account["accepted"], account["charged"] - account["refunded"]) == (4, PRICE)


async def test_a_parent_that_may_have_been_paid_for_holds_its_children_and_wins(place: Place) -> None:
    async with place.service("drop_after=next:1") as simulator:
        result = await place.run()
        assert (result.exit_code, result.stop) == (3, Stop.NEEDS)
        assert place.states() == {"still-1": "unconfirmed", "run-1": "pending", "swim-1": "pending"}
        task = tasks(simulator)["still-1"]["id"]
        assert call("resolve", "still-1", "--task-id", task).code == 0
        assert (await place.run()).exit_code == 0
        assert simulator.account()["accepted"] == 3


async def test_a_cancelled_parent_holds_its_children(place: Place) -> None:
    async with place.service() as simulator:
        assert (await place.run(limit=0)).exit_code == 4
        assert call("cancel", "still-1").code == 0
        result = await place.run()
        assert simulator.account()["posts"] == 0
    assert result.exit_code == 4
    assert result.message.startswith("run-1 waits for still-1, which is cancelled")


async def test_only_the_child_does_not_pay_for_its_parent(place: Place) -> None:
    found = plan("--only", "run", "--json").json
    assert found["summary"]["credits"] == 519
    assert found["jobs"][0]["waits_for"] == ["still-1"]
    assert "run-1 would wait for still-1: not selected, and not done" in plan("--only", "run").out
    async with place.service() as simulator:
        result = await place.run("run")
        assert (result.exit_code, result.message) == (4, "run-1 waits for still-1, which is pending")
        assert simulator.account()["posts"] == 0
        assert (await place.run("still")).exit_code == 0
        assert (await place.run("run")).exit_code == 0
        assert set(tasks(simulator)) == {"still-1", "run-1"}


async def test_a_limit_ends_a_chain_where_it_says(place: Place) -> None:
    async with place.service() as simulator:
        for number in (1, 2):
            result = await place.run(limit=1)
            assert (result.exit_code, result.stop) == (4, Stop.LIMIT)
            assert simulator.account()["posts"] == number
        assert (await place.run(limit=1)).exit_code == 0


async def test_urls_that_were_found_too_long_ago_are_found_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two children of one still are ready at once, and one waits for a slot longer than its URL is trusted."""
    looks: list[str] = []
    look = Fetcher.look

    async def seen(self: Fetcher, url: str) -> None:
        looks.append(url)
        await look(self, url)

    monkeypatch.setattr(Fetcher, "look", seen)
    monkeypatch.setattr(submit, "SUPPLIED_FOR", 0.2)
    place.write(STILL + RUN + RUN.replace("id: run", "id: two"))
    text = (place.folder / "night.yaml").read_text()
    (place.folder / "night.yaml").write_text(text.replace("{submits_per_minute: 60000}", "{in_flight: 1}"))
    async with place.service(median_seconds=0.5) as simulator:
        assert (await place.run()).exit_code == 0
        assert simulator.account()["accepted"] == 3
    assert len(looks) >= 3, "one look for each child, and another for the one that has waited"


async def test_the_time_that_is_up_leaves_what_waits_pending(place: Place) -> None:
    async with place.service(median_seconds=2.0) as simulator:
        result = await place.run(until=1.5)
        assert simulator.account()["accepted"] == 1
    assert (result.exit_code, result.stop) == (4, Stop.DEADLINE)
    assert place.states() == {"still-1": "succeeded", "run-1": "pending", "swim-1": "pending"}


async def test_a_budget_holds_over_a_chain(place: Place) -> None:
    async with place.service() as simulator:
        result = await place.run(max_credits=600)
        assert simulator.account()["charged"] == 549
    assert (result.exit_code, result.stop) == (4, Stop.BUDGET)


async def test_an_edited_parent_plans_its_descendants_again_and_says_why(place: Place) -> None:
    async with place.service() as simulator:
        assert (await place.run()).exit_code == 0
        place.write(CHAIN.replace("a corgi", "a cat"))
        told = plan().out
        assert "needs still-1 changed" in told
        assert "needs run-1 changed" in told
        found = plan("--json").json
        assert found["summary"]["credits"] == PRICE
        assert [j.get("needs_changed") for j in found["jobs"]] == [None, ["still-1"], ["run-1"]]

        frozen = plan("--out", "plan.json")
        assert frozen.code == 0
        place.write(CHAIN.replace("a corgi", "a cow"))
        refused = call("run", "--plan", "plan.json", "--dry-run")
        assert refused.code == 2
        assert "run-1 asks for something else: needs still-1 changed" in refused.err
        place.write(CHAIN.replace("a corgi", "a cat"))

        assert (await place.run()).exit_code == 0
        rows = simulator.account()["tasks"]
        assert [row["uses"] for row in rows[3:]] == [[], [rows[3]["id"]], [rows[4]["id"]]]
        place.write()  # and back: nothing to pay for
        assert (await place.run()).exit_code == 0
        assert simulator.account()["accepted"] == 6


async def test_takes_and_points_find_their_own_parents(place: Place) -> None:
    place.write(
        '  - {id: s, model: z-image, prompt: "a ${what}", takes: 2, matrix: {what: [dog, cat]}}\n'
        "  - {id: same, model: kling-3-0-turbo, prompt: x, takes: 2, matrix: {what: [dog, cat]}, "
        'first_frame: "${shots.s.take.output_url}"}\n'
        '  - {id: one, model: kling-3-0-turbo, prompt: y, first_frame: "${shots.s@what=cat-2.output_url}"}\n'
        "  - {id: two, model: kling-3-0-turbo, prompt: z, matrix: {what: [cat]}, "
        'first_frame: "${shots.s.1.output_url}"}\n'
    )
    async with place.service() as simulator:
        assert (await place.run()).exit_code == 0
        known = tasks(simulator)
    ids = {row["id"]: key for key, row in known.items()}
    found = {key: ids[row["uses"][0]] for key, row in known.items() if row["uses"]}
    # Takes of one request are one and the same to a child's fingerprint; each uses its own all the same.
    assert found == {
        "same@what=dog-1": "s@what=dog-1",
        "same@what=dog-2": "s@what=dog-2",
        "same@what=cat-1": "s@what=cat-1",
        "same@what=cat-2": "s@what=cat-2",
        "one-1": "s@what=cat-2",
        "two@what=cat-1": "s@what=cat-1",
    }


async def test_a_child_that_is_recorded_before_its_parent_waits_for_it(place: Place) -> None:
    place.write(SWIM + RUN + STILL)
    settings = replace(SETTINGS, first_part=1, part=1)
    async with place.service() as simulator:
        assert (await place.run(settings=settings)).exit_code == 0
        known = tasks(simulator)
    assert known["swim-1"]["uses"] == [known["run-1"]["id"]]


async def test_resume_needs_no_manifest_for_a_chain(place: Place) -> None:
    async with place.service() as simulator:
        assert (await place.run(limit=1)).exit_code == 4
        (place.folder / "night.yaml").unlink()
        result = await app.run_here(app.RunOptions(place.db, settings=SETTINGS), app.Watcher())
        assert result.exit_code == 0
        assert simulator.account()["accepted"] == 3


async def test_a_final_is_made_from_the_frame_of_its_draft(place: Place) -> None:
    async with place.service() as simulator:
        assert (await place.run()).exit_code == 0
        assert call("approve", "swim-1").code == 0
        dry = call("promote", "night", "--profile", "final", "--dry-run", "--no-balance")
        assert "swim-1@final" in dry.out
        assert "resolution" in dry.out
        promotion = load_profile(place.folder / "night.yaml", "final", variables={})
        asked = app.RunOptions(place.db, promotion=promotion, selection=promoted("final"), settings=SETTINGS)
        assert (await app.run_here(asked, app.Watcher())).exit_code == 0
        rows = {row["label"]: row for row in simulator.account()["tasks"]}
        final = next(row for label, row in rows.items() if "final" in label)
        assert final["uses"] == [rows["run-1"]["id"]]


@pytest.mark.slow
def test_a_simulated_chain_that_is_killed_at_every_link(tmp_path: Path) -> None:
    """Run again it goes on: each POST once, with the output that was paid for before."""
    line = CommandLine.at(tmp_path)
    (tmp_path / "night.yaml").write_text(f"{HEAD}shots:\n{CHAIN}")
    db = tmp_path / "batchrunner.sim.db"
    for _link in range(3):
        run = line.start("run", "night.yaml", "--simulate")
        run.until("accepted")  # and nothing more is on the wire until its task has ended
        run.kill()

    assert line.call("run", "night.yaml", "--simulate") == 0

    books = Books(db, tmp_path / "copy")
    account = simulated(db.with_name(db.name + ".account"))
    assert [t["label"] for t in account] == ["still-1", "run-1", "swim-1"]
    assert [t["uses"] for t in account] == [[], [account[0]["id"]], [account[1]["id"]]]
    assert sum(t["credits"] for t in account) == PRICE == sum(b["spent"] for b in books.batches)
    assert books.states() == {"succeeded": 3}
    with closing(sqlite3.connect(tmp_path / "copy/copy.db")) as connection:
        sent = [row[0] or "" for row in connection.execute("SELECT request FROM attempt")]
    assert all("$" not in text for text in sent)


@pytest.mark.parametrize("variable", ["REAPI_API_KEY", "REAPI_KEY"])
async def test_the_upload_command_never_sees_the_key(tmp_path: Path, variable: str) -> None:
    environment = {
        **os.environ,
        variable: "rk_secret",
        UPLOAD: f"sh -c 'env > {tmp_path}/env; echo https://x.example/a'",
    }
    offer = offerer(environment)
    assert offer is not None
    assert await offer(tmp_path / "clip.mp4") == "https://x.example/a"
    assert "rk_secret" not in (tmp_path / "env").read_text()
