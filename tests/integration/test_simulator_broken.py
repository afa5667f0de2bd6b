"""Every fault of the simulator, seen from the client and from the simulator's account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from batchrunner.simulator import FAULTS, Simulator, SimulatorSettings, parse_faults

BODY = json.dumps({"model": "kling-3-0-turbo", "prompt": "a corgi"}).encode()
AUTH = {"Authorization": "Bearer rk_test", "Content-Type": "application/json"}
GENERATIONS = "/api/v1/videos/generations"


class Bench:
    """A simulator whose tasks take 10 s on a clock that moves when told, and a client."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.now = 1_800_000_000.0
        self.http = http
        settings = SimulatorSettings(median_seconds=10, sigma=0, clips="tiny")
        self.simulator = Simulator(settings, clock=lambda: self.now)

    def faults(self, *texts: str) -> None:
        self.simulator.set_faults(parse_faults(texts))

    async def get(self, path: str) -> tuple[int, bytes, aiohttp.ClientResponse]:
        url = path if path.startswith("http") else self.simulator.url + path
        async with self.http.get(url, headers=AUTH) as response:
            return response.status, await response.read(), response

    async def post(self) -> tuple[int, bytes, aiohttp.ClientResponse]:
        async with self.http.post(
            self.simulator.url + GENERATIONS, data=BODY, headers=AUTH, allow_redirects=False
        ) as response:
            return response.status, await response.read(), response

    async def task(self) -> str:
        return str(json.loads((await self.post())[1])["id"])

    async def poll(self, task_id: str) -> dict[str, Any]:
        status, body, _ = await self.get(f"/api/v1/tasks/{task_id}")
        assert status == 200
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return answer

    async def finished(self) -> tuple[str, str]:
        """The id of a finished task and its output's URL."""
        task_id = await self.task()
        self.now += 10
        return task_id, (await self.poll(task_id))["output"]["video_urls"][0]

    @property
    def accepted(self) -> int:
        return int(self.simulator.account()["accepted"])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as http:
        bench = Bench(http)
        async with bench.simulator:
            yield bench


@pytest.mark.parametrize(
    ("fault", "status", "code", "counter"),
    [
        ("error500_before", 500, 60099, None),
        ("error500_before=1:503", 503, 60099, None),
        ("throttle", 429, 50001, "throttled"),
        ("reject", 400, 20003, "rejected"),
        ("reject=1:422", 422, 20003, "rejected"),
        ("no_credit", 402, 30001, "refused"),
        ("unauthorized", 401, 10004, "refused"),
    ],
)
async def test_posts_that_create_nothing(bench: Bench, fault: str, status: int, code: int, counter: str | None) -> None:
    bench.faults(fault)
    got, body, response = await bench.post()
    assert (got, json.loads(body)["error"]["code"]) == (status, code)
    assert ("Retry-After" in response.headers) == (status == 429)
    account = bench.simulator.account()
    assert (account["accepted"], account["charged"], account["posts"]) == (0, 0, 1)
    assert counter is None or account[counter] == 1


async def test_retry_after_is_the_faults_value(bench: Bench) -> None:
    bench.faults("throttle=1:7.2")
    assert (await bench.post())[2].headers["Retry-After"] == "8"


@pytest.mark.parametrize(("fault", "accepted"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_reset_around_a_post(bench: Bench, fault: str, accepted: int) -> None:
    bench.faults(f"{fault}=next:1")
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await bench.post()
    assert bench.accepted == accepted
    assert bench.simulator.account()["charged"] == 630 * accepted
    await bench.task()
    assert bench.accepted == accepted + 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [("error500_after", 500), ("error500_after=1:504", 504), ("redirect", 307), ("redirect=1:303", 303)],
)
async def test_posts_that_create_a_task_and_say_otherwise(bench: Bench, fault: str, status: int) -> None:
    bench.faults(fault)
    got, _, response = await bench.post()
    assert got == status
    assert response.headers.get("Location") == (GENERATIONS if "redirect" in fault else None)
    assert (bench.accepted, bench.simulator.account()["charged"]) == (1, 630)


async def test_an_answer_without_an_id(bench: Bench) -> None:
    bench.faults("no_id")
    status, body, _ = await bench.post()
    assert status == 200
    assert json.loads(body) == {"model": "kling-3-0-turbo", "status": "processing", "created_at": 1_800_000_000}
    assert bench.accepted == 1


@pytest.mark.parametrize(
    ("fault", "status", "accepted"), [("html", 502, 0), ("html=1:200", 200, 0), ("html_after", 200, 1)]
)
async def test_a_page_instead_of_an_answer(bench: Bench, fault: str, status: int, accepted: int) -> None:
    bench.faults(fault)
    got, body, response = await bench.post()
    assert (got, response.content_type, bench.accepted) == (status, "text/html", accepted)
    assert body.startswith(b"<!DOCTYPE html>")


async def test_a_late_answer(bench: Bench) -> None:
    bench.faults("slow=next:1:3600")
    post = asyncio.create_task(bench.post())
    while not bench.accepted:
        await asyncio.sleep(0)
    assert not post.done(), "the task exists, its answer is not there"
    post.cancel()
    with pytest.raises(asyncio.CancelledError):
        await post
    bench.faults("slow=1:0.001")
    assert (await bench.post())[0] == 200


async def test_a_task_that_never_ends(bench: Bench) -> None:
    bench.faults("stall")
    task_id = await bench.task()
    bench.now += 365 * 86400
    assert (await bench.poll(task_id))["status"] == "processing"
    assert bench.simulator.account()["tasks"][0]["due_at"] is None


async def test_an_undocumented_status_for_a_while(bench: Bench) -> None:
    bench.faults("unknown_status=1:4")
    task_id = await bench.task()
    seen = []
    for _ in range(3):
        seen.append((await bench.poll(task_id))["status"])
        bench.now += 5
    assert seen == ["waiting_for_capacity", "processing", "completed"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("poll500", 500, 60099), ("poll500=1:502", 502, 60099), ("poll404", 404, 40001), ("poll_throttle", 429, 50001)],
)
async def test_polls_that_fail(bench: Bench, fault: str, status: int, code: int) -> None:
    task_id = await bench.task()
    bench.faults(fault)
    got, body, _ = await bench.get(f"/api/v1/tasks/{task_id}")
    assert (got, json.loads(body)["error"]["code"]) == (status, code)
    bench.faults()
    assert (await bench.poll(task_id))["status"] == "processing"
    assert bench.simulator.account()["polls"] == 2


async def test_polls_that_are_no_answers(bench: Bench) -> None:
    task_id = await bench.task()
    bench.faults("poll_html")
    status, _, response = await bench.get(f"/api/v1/tasks/{task_id}")
    assert (status, response.content_type) == (200, "text/html")
    bench.faults("poll_drop")
    with pytest.raises(aiohttp.ClientOSError):
        await bench.get(f"/api/v1/tasks/{task_id}")


async def test_a_url_that_is_dead_on_arrival(bench: Bench) -> None:
    task_id = await bench.task()
    bench.now += 10
    bench.faults("expired_url=next:1")
    dead = (await bench.poll(task_id))["output"]["video_urls"][0]
    assert (await bench.get(dead))[0] == 403
    fresh = (await bench.poll(task_id))["output"]["video_urls"][0]
    assert (await bench.get(fresh))[0] == 200


async def test_media_that_breaks(bench: Bench) -> None:
    _, url = await bench.finished()
    _, whole, response = await bench.get(url)
    bench.faults("truncated=next:1")
    with pytest.raises(aiohttp.ClientPayloadError):
        await bench.get(url)
    bench.faults("truncated_file")
    status, cut, cut_response = await bench.get(url)
    assert (status, len(cut)) == (200, int(cut_response.headers["Content-Length"]))
    assert whole.startswith(cut)
    assert len(cut) < len(whole)
    assert cut_response.headers["ETag"] != response.headers["ETag"]
    bench.faults("media500")
    assert (await bench.get(url))[0] == 503
    bench.faults()
    assert (await bench.get(url))[1] == whole
    assert bench.simulator.account()["tasks"][0]["downloads"] == 5


async def test_faults_change_while_it_runs(bench: Bench) -> None:
    url = bench.simulator.url + "/_simulator/faults"
    async with bench.http.post(url, json={"faults": ["reject=next:1", "slow=0.5:2"]}) as response:
        assert response.status == 200
    assert (await bench.post())[0] == 400
    _, body, _ = await bench.get("/_simulator/faults")
    shown = json.loads(body)
    assert set(shown["known"]) == set(FAULTS)
    assert shown["faults"] == [
        {"name": "reject", "chance": 0.0, "next": 0, "value": 400.0, "fired": 1},
        {"name": "slow", "chance": 0.5, "next": 0, "value": 2.0, "fired": 0},
    ]
    for wrong, says in (
        (b"{", "write {"),
        (b"{}", "write {"),
        (b'{"faults": 3}', "write {"),
        (b'{"faults": ["rejct"]}', "did you mean reject?"),
    ):
        async with bench.http.post(url, data=wrong) as response:
            assert response.status == 400
            assert says in (await response.json())["error"]["message"]
    assert json.loads((await bench.get("/_simulator/faults"))[1])["faults"] == shown["faults"]


async def test_a_mix_repeats_with_the_seed(bench: Bench) -> None:
    async def outcomes(seed: int) -> list[Any]:
        faults = parse_faults(["fail=0.2", "moderate=0.1", "stall=0.1", "error500_before=0.2", "no_id=0.1"])
        simulator = Simulator(SimulatorSettings(seed=seed, faults=faults), clock=lambda: bench.now)
        seen: list[Any] = []
        async with simulator:
            for _ in range(60):
                async with bench.http.post(simulator.url + GENERATIONS, data=BODY, headers=AUTH) as response:
                    seen.append((response.status, "id" in await response.json()))
            tasks = simulator.account()["tasks"]
        return seen + [(task["error"], task["due_at"]) for task in tasks]

    first = await outcomes(5)
    assert first == await outcomes(5)
    assert first != await outcomes(6)
    assert {80001, 80006, None} <= {error for error, _ in first}
