"""A service that can be asked what became of a submission: the lost answer settles itself, through the real command
line, and nothing is ever sent again for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.events import Refused, Throttled
from batchrunner.core.keys import submission_token
from batchrunner.engine.ports import LOOKUP_POINTS
from batchrunner.environment import connect
from batchrunner.exits import UsageError
from batchrunner.providers.base import Access, Capabilities, Found, NotFound, ProviderKind, Traceable, Unavailable
from batchrunner.providers.reapi import KIND as REAPI
from tests.providers.beacon import KIND, Service, package
from tests.providers.plugin import write_model
from tests.providers.test_mixed import NEVER, ROOT, Ran, call
from tests.raw_server import RawServer, Script, envelope, http, once

MANIFEST = """\
version: 1
batch: night
provider: beacon
budget: {max_credits: 1000}
limits: {in_flight: 1}
shots:
  - {id: dog, model: beacon-1, prompt: a dog, takes: TAKES}
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A folder with the package, its model and a manifest, and the double that it leads to."""

    folder: Path
    where: dict[str, str]

    async def run(self, point: tuple[str, int] = NEVER, *more: str) -> Ran:
        words = ("run", "m.yaml", "--models", "mine", "--json", *more)
        return await call(self.folder, *words, dying=point, where=self.where)

    async def told(self, *words: str) -> Any:
        ran = await call(self.folder, *words, "--json", where=self.where)
        assert ran.code == 0, ran.err
        return json.loads(ran.out)


def stage(folder: Path, url: str, takes: int = 1) -> Stage:
    site = package(folder)
    write_model(folder / "mine", "beacon", "beacon-1")
    (folder / "m.yaml").write_text(MANIFEST.replace("TAKES", str(takes)), "utf-8")
    paths = os.pathsep.join([str(site), str(ROOT)])
    return Stage(folder, {"PYTHONPATH": paths, "BEACON_BASE_URL": url, "BEACON_KEY": "bk_canary_0123456789"})


async def settled(at: Stage, service: Service) -> None:
    """The one job has its one task, for one price, and the history says who found it."""
    status = await at.told("status", "night")
    shown = await at.told("show", "dog-1")
    assert (service.sent, len(service.tokens)) == (1, 1), "one POST, one task"
    assert (shown["state"], shown["task_id"], shown["attempts"]) == ("succeeded", "task-1", 1)
    price = shown["credits"]
    assert price > 0
    assert status["credits"] == {"spent": price, "reserved": 0, "at_risk": 0, "estimated": price, "max": 1000}
    (found,) = [h for h in shown["history"] if h["event"] == "identified"]
    assert found["who"] == "beacon's own record"
    assert (at.folder / "outputs" / "night" / "dog-1.png").is_file()


async def held(at: Stage, service: Service, sent: int = 1) -> dict[str, Any]:
    """The last job is in doubt, its price at risk, and nothing was sent again."""
    found = (await at.told("jobs", "night"))[-1]
    status = await at.told("status", "night")
    assert service.sent == sent
    assert (found["state"], found["attempts"], found["error"]["kind"]) == ("unconfirmed", 1, "ambiguous")
    assert status["credits"]["at_risk"] == found["credits"] > 0
    shown: dict[str, Any] = await at.told("show", found["job"])
    return shown


@pytest.mark.parametrize("late", [0, 2])
async def test_a_lost_answer_settles_itself_within_the_run(late: int, tmp_path: Path) -> None:
    """Also where the service lists it only when it is asked for the third time."""
    service = Service("lost", late=late)
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        ran = await at.run()
        assert ran.code == 0, ran.err
        await settled(at, service)
        assert service.asked == late + 1
        assert "canary" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("point", "post"),
    [
        ("submit.answered", "answered"),
        ("submit.answered", "lost"),
        ("submit.recorded", "lost"),
        ("lookup.answered", "lost"),
        ("lookup.recorded", "lost"),
    ],
)
async def test_what_a_run_left_in_doubt_is_settled_by_the_next(point: str, post: str, tmp_path: Path) -> None:
    """Wherever the first one dies between the POST and the record of what it became."""
    service = Service(post)
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run((point, 1))).code == 9
        ran = await at.run()
        assert ran.code == 0, ran.err
        await settled(at, service)


async def test_what_never_arrived_stays_with_a_person(tmp_path: Path) -> None:
    """A service that knows nothing of it now proves nothing: it may be on its way. `show` says what it said, and when.
    Another run asks again, and sends nothing; a person's word does."""
    service = Service("never", "answered")
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run(("lookup.noted", 1))).code == 9
        assert (await at.run()).code == 3
        shown = await held(at, service)
        notes = [h for h in shown["history"] if h["event"] == "lookup"]
        assert [(n["from"], n["to"], n["who"]) for n in notes] == [("unconfirmed", "unconfirmed", "beacon")] * 2
        assert all("knows nothing of it" in n["reason"] and n["at"] for n in notes)
        assert (await call(tmp_path, "doctor", "--offline", where=at.where)).code == 0

        ran = await at.run(NEVER, "--on-unconfirmed", "resubmit")
        assert ran.code == 0, ran.err
        assert (service.sent, list(service.tokens.values())) == (2, ["task-2"])


async def test_a_word_that_it_may_be_sent_again_counts_after_the_service_was_asked(tmp_path: Path) -> None:
    """What it knows is followed, and paid for once, though a person was ready to pay twice."""
    service = Service("lost")
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run(("submit.answered", 1))).code == 9
        ran = await at.run(NEVER, "--on-unconfirmed", "resubmit")
        assert ran.code == 0, ran.err
        await settled(at, service)


@pytest.mark.parametrize("lookups", ["html", "reset"])
async def test_and_does_not_where_it_could_not_be_asked(lookups: str, tmp_path: Path) -> None:
    service = Service("lost", lookups=lookups)
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run(("submit.answered", 1))).code == 9
        assert (await at.run(NEVER, "--on-unconfirmed", "resubmit")).code == 3
        await held(at, service)


async def test_a_death_right_after_that_word_loses_nothing(tmp_path: Path) -> None:
    service = Service("never", "answered")
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run()).code == 3
        assert (await at.run(("word.recorded", 1), "--on-unconfirmed", "resubmit")).code == 9
        assert (await at.run()).code == 0
        assert (service.sent, list(service.tokens.values())) == (2, ["task-2"])


async def test_a_death_before_the_first_byte_stays_with_a_person_too(tmp_path: Path) -> None:
    service = Service("answered", lookups="404")
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run(("submit.intent", 1))).code == 9
        assert (await at.run()).code == 3
        shown = await held(at, service, sent=0)
        assert "no such submission" in shown["history"][-1]["reason"]


@pytest.mark.parametrize("lookups", ["two", "html", "reset"])
async def test_a_lookup_that_proves_nothing_settles_nothing(lookups: str, tmp_path: Path) -> None:
    service = Service("lost", lookups=lookups)
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run()).code == 3
        shown = await held(at, service)
        assert "could not be asked" in shown["history"][-1]["reason"]


async def test_another_submissions_task_is_not_taken(tmp_path: Path) -> None:
    """The service names the first job's task under the second one's token: a task is one job's."""
    service = Service("answered", "lost", lookups="first")
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url, takes=2)
        assert (await at.run()).code == 3
        shown = await held(at, service, sent=2)
        assert "the service names task" in shown["history"][-1]["reason"]


async def test_a_key_that_is_refused_ends_the_asking_and_one_that_is_gone_prevents_it(tmp_path: Path) -> None:
    service = Service("lost", lookups="401")
    async with RawServer(service) as server:
        at = stage(tmp_path, server.url)
        assert (await at.run()).code == 6
        assert service.asked == 1
        without = Stage(at.folder, {**at.where, "BEACON_KEY": ""})
        assert (await without.run()).code == 3
        assert (service.asked, service.sent) == (1, 1)


# --- What every provider with a lookup must do -----------------------------------------------------------

TOKEN = submission_token("night", 1)


async def lookup(script: Script) -> object:
    async with RawServer(script) as server:
        provider = connect(KIND, Access(server.url, "bk_canary_0123456789"), lambda: 0.0)
        assert isinstance(provider, Traceable)
        try:
            answer = await provider.lookup(TOKEN, "beacon-1")
        finally:
            await provider.aclose()
        assert "canary" not in repr(answer)
        assert len(server.requests) == 1
        return answer


def listed(*pairs: tuple[object, object]) -> dict[str, Any]:
    return {"submissions": [{"token": token, "task": task} for token, task in pairs]}


async def test_only_one_usable_task_under_this_token_is_found() -> None:
    assert await lookup(once(http(200, listed((TOKEN, "task-1"))))) == Found("task-1")


@pytest.mark.parametrize("data", [http(200, listed()), http(404, envelope())])
async def test_a_service_that_knows_of_none_says_so(data: bytes) -> None:
    assert isinstance(await lookup(once(data)), NotFound)


@pytest.mark.parametrize(
    "data",
    [
        http(200, listed(("0" * 40, "task-1"))),
        http(200, listed((None, "task-1"))),
        http(200, listed((TOKEN, "task-1"), (TOKEN, "task-2"))),
        http(200, listed((TOKEN, "task-1"), ("0" * 40, "task-2"))),
        http(200, listed((TOKEN, "../balance"))),
        http(200, listed((TOKEN, 7))),
        http(200, listed((TOKEN, "bk_canary_0123456789"))),
        http(200, {"submissions": None}),
        http(200, "<html></html>"),
        http(200, listed(), length=1000),
        http(404, "<html>nginx</html>"),
        http(404, envelope(), length=1000),
        http(500, envelope()),
        http(307, listed((TOKEN, "task-1")), ("Location", "/")),
        b"",
    ],
)
async def test_whatever_proves_less_is_no_answer(data: bytes) -> None:
    assert isinstance(await lookup(once(data)), Unavailable)


async def test_a_lookup_that_is_held_or_refused() -> None:
    assert isinstance(await lookup(once(http(429, envelope(), ("Retry-After", "3")))), Throttled)
    assert isinstance(await lookup(once(http(401, envelope()))), Refused)


@pytest.mark.parametrize(
    ("opens", "has"), [(REAPI, Capabilities(lookup=True)), (KIND, Capabilities())], ids=["without", "with"]
)
def test_a_provider_is_what_it_says_of_itself(opens: ProviderKind, has: Capabilities) -> None:
    kind = ProviderKind(opens.name, "x", has, opens.keys, opens.base_url, "X", opens.source, opens.open)
    with pytest.raises(UsageError, match="its package is broken"):
        connect(kind, Access("https://x.example", "k_0123456789"))


def test_a_submissions_token_is_its_own() -> None:
    """Of a ledger, a job and an attempt, and the same whenever it is asked for."""
    known: tuple[object, ...] = ("night", 1.5, "dog-1", "f" * 32, 2.5, 1)
    assert submission_token(*known) == submission_token(*known)
    others = [(*known[:n], "another", *known[n + 1 :]) for n in range(len(known))]
    assert len({submission_token(*one) for one in (known, *others)}) == 7
    assert len(TOKEN) == 40


def test_the_points_of_a_lookup_are_all_died_at() -> None:
    here = Path(__file__).read_text("utf-8")
    assert all(f'("{point}", ' in here for point in LOOKUP_POINTS)
