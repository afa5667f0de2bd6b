"""The simulator speaks reAPI (REAPI.md): over real sockets, on a clock of the test's own."""

from __future__ import annotations

import hashlib
import io
import json
import math
import statistics
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from batchrunner.simulator import Simulator, SimulatorSettings, parse_faults

KEY = "rk_live_0123456789"
SHOT = {"model": "kling-3-0-turbo", "prompt": "a corgi running on the beach"}
QUICK = SimulatorSettings(median_seconds=10, sigma=0, clips="tiny", balance=10_000)


class Clock:
    """Unix seconds that move when told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A caller with a key."""

    def __init__(self, http: aiohttp.ClientSession, simulator: Simulator) -> None:
        self.http = http
        self.simulator = simulator
        self.auth: dict[str, str] = {"Authorization": f"Bearer {KEY}"}

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        headers = self.auth | options.pop("headers", {})
        url = path if path.startswith("http") else self.simulator.url + path
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **options) as response:
            body: Any = await response.read()
            if response.content_type == "application/json":
                body = json.loads(body)
            return response.status, body, response

    async def submit(self, **fields: Any) -> dict[str, Any]:
        status, task, _ = await self.call("POST", "/api/v1/videos/generations", json=SHOT | fields)
        assert status == 200, task
        assert isinstance(task, dict)
        return task

    async def poll(self, task_id: str) -> dict[str, Any]:
        status, task, _ = await self.call("GET", f"/api/v1/tasks/{task_id}")
        assert status == 200, task
        assert isinstance(task, dict)
        return task

    async def balance(self) -> int:
        _, answer, _ = await self.call("GET", "/api/v1/balance")
        return int(answer["balance"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_life_of_a_task(http: aiohttp.ClientSession, clock: Clock) -> None:
    async with Simulator(QUICK, clock=clock) as simulator:
        client = Client(http, simulator)
        body = json.dumps(SHOT).encode()
        headers = {"X-Batchrunner-Job": "corgi-beach-1", "Content-Type": "application/json"}
        status, task, response = await client.call("POST", "/api/v1/videos/generations", data=body, headers=headers)
        assert status == 200
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert task == {
            "id": task["id"],
            "model": "kling-3-0-turbo",
            "status": "processing",
            "created_at": 1_800_000_000,
        }
        assert len(task["id"]) == 37
        assert task["id"].startswith("task_")
        int(task["id"][5:], 16)
        assert await client.balance() == 10_000 - 630
        clock.now += 9.99
        assert await client.poll(task["id"]) == task
        clock.now += 0.02
        done = await client.poll(task["id"])
        url = done["output"]["video_urls"][0]
        assert done == task | {"status": "completed", "output": {"video_urls": [url]}, "usage": {"credits": 630}}
        assert url.startswith(f"{simulator.url}/media/tasks/{task['id']}/0.mp4?")
        async with http.get(url) as media:
            assert media.status == 200
            assert media.content_type == "video/mp4"
            assert len(await media.read()) == int(media.headers["Content-Length"])
        account = simulator.account()
        assert (await client.call("GET", "/_simulator/account"))[1] == account
    assert simulator.account() == account, "the account can be read after the end"
    assert account.pop("tasks") == [
        {
            "id": task["id"],
            "number": 1,
            "label": "corgi-beach-1",
            "model": "kling-3-0-turbo",
            "request_sha256": hashlib.sha256(body).hexdigest(),
            "prompt": SHOT["prompt"],
            "uses": [],
            "credits": 630,
            "status": "completed",
            "error": None,
            "created_at": 1_800_000_000.0,
            "due_at": 1_800_000_010.0,
            "refunded": False,
            "polls": 2,
            "downloads": 1,
        }
    ]
    assert account == {
        "accepted": 1,
        "charged": 630,
        "refunded": 0,
        "balance": 9_370,
        "posts": 1,
        "polls": 2,
        "downloads": 1,
        "rejected": 0,
        "refused": 0,
        "throttled": 0,
        "users": 1,
    }


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 10001),
        ("Bearer sk_other", 10002),
        ("Basic rk_x", 10002),
        ("rk_x", 10002),
        ("Bearer rk_a b", 10002),
        ("Bearer rk_wrong", 10003),
    ],
)
async def test_credentials(http: aiohttp.ClientSession, header: str | None, code: int) -> None:
    async with Simulator(replace(QUICK, keys=frozenset({KEY}))) as simulator:
        client = Client(http, simulator)
        client.auth = {} if header is None else {"Authorization": header}
        for method, path in (
            ("POST", "/api/v1/videos/generations"),
            ("GET", "/api/v1/tasks/task_1"),
            ("GET", "/api/v1/balance"),
        ):
            status, answer, _ = await client.call(method, path)
            assert (status, answer["error"]["code"]) == (401, code)
        client.auth = {"Authorization": f"bearer {KEY}"}
        assert await client.balance() == 10_000
        assert KEY not in json.dumps(simulator.account())
        assert simulator.account()["refused"] == 3


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("videos", b"", 20002, "not valid JSON"),
        ("videos", b"\xff", 20002, "not valid JSON"),
        ("videos", b"[" * 5000, 20002, "not valid JSON"),
        ("videos", b"[]", 20002, "must be a JSON object"),
        ("videos", b"{}", 20003, "model: required"),
        ("videos", b'{"model": "kling-9"}', 20003, "'kling-9' is not available at /videos/generations"),
        ("images", json.dumps(SHOT).encode(), 20003, "not available at /images/generations"),
        ("audio", json.dumps(SHOT).encode(), 20003, "not available at /audio/generations"),
        ("videos", json.dumps(SHOT | {"duration": 16}).encode(), 20003, "duration: 16 is greater than"),
        ("videos", json.dumps(SHOT | {"duration": "5"}).encode(), 20003, "duration: "),
        ("videos", json.dumps(SHOT | {"resolution": "4k"}).encode(), 20003, "resolution: "),
        ("videos", json.dumps(SHOT | {"prompt": "x" * 3073}).encode(), 20003, "prompt: "),
        ("videos", json.dumps(SHOT | {"durations": 5}).encode(), 20003, "durations"),
        ("videos", b'{"model": "kling-3-0-turbo"}', 20003, "request: "),
        (
            "videos",
            b'{"model": "kling-3-0-turbo", "first_frame_image": "data:image/png;base64,AA"}',
            20003,
            "first_frame_image: ",
        ),
    ],
)
async def test_invalid_requests_cost_nothing(
    http: aiohttp.ClientSession, path: str, body: bytes, code: int, says: str
) -> None:
    async with Simulator(QUICK) as simulator:
        client = Client(http, simulator)
        status, answer, _ = await client.call("POST", f"/api/v1/{path}/generations", data=body)
        error = answer["error"]
        assert (status, error["code"]) == (400, code)
        assert says in error["message"]
        assert len(error["message"]) <= 300
        assert error["request_id"].startswith("req_")
        account = simulator.account()
        assert (account["accepted"], account["rejected"], account["balance"]) == (0, 1, 10_000)


async def test_what_is_not_there(http: aiohttp.ClientSession) -> None:
    async with Simulator(QUICK) as simulator:
        client = Client(http, simulator)
        for method, path in (
            ("GET", "/"),
            ("GET", "/api/v1/tasks"),
            ("POST", "/api/v1/videos"),
            ("DELETE", "/api/v1/tasks/task_1"),
            ("GET", "/api/v1/tasks/task_unknown"),
            ("GET", "/api/v1/tasks/%ff%fe"),
            ("GET", "/media/tasks/task_unknown/0.mp4"),
        ):
            status, answer, _ = await client.call(method, path)
            assert status == 404
            assert 40000 < answer["error"]["code"] < 40009
        status, answer, _ = await client.call(
            "POST", "/api/v1/videos/generations", data=io.BytesIO(b"x" * ((1 << 20) + 1))
        )
        assert (status, answer["error"]["code"]) == (413, 20002)


async def test_a_task_is_its_users_alone(http: aiohttp.ClientSession) -> None:
    async with Simulator(QUICK) as simulator:
        one, two = Client(http, simulator), Client(http, simulator)
        two.auth = {"Authorization": "Bearer rk_somebody_else"}
        task = await one.submit()
        status, answer, _ = await two.call("GET", f"/api/v1/tasks/{task['id']}")
        assert (status, answer["error"]["code"]) == (404, 40001)
        assert (await one.balance(), await two.balance()) == (9_370, 10_000)
        account = simulator.account()
        assert (account["users"], account["balance"], account["polls"]) == (2, 19_370, 1)


async def test_prices_are_the_catalogues(http: aiohttp.ClientSession) -> None:
    async with Simulator(QUICK) as simulator:
        client = Client(http, simulator)
        await client.submit(duration=15)
        await client.submit(duration=15, resolution="1080p")
        assert [task["credits"] for task in simulator.account()["tasks"]] == [1888, 2363]


async def test_402_when_the_balance_does_not_suffice(http: aiohttp.ClientSession, clock: Clock) -> None:
    settings = replace(QUICK, balance=1_300, faults=parse_faults(["fail=next:1"]))
    async with Simulator(settings, clock=clock) as simulator:
        client = Client(http, simulator)
        failing = await client.submit()
        await client.submit()
        status, answer, _ = await client.call("POST", "/api/v1/videos/generations", json=SHOT)
        assert (status, str(answer["error"]["code"])[0]) == (402, "3")
        assert await client.balance() == 40
        clock.now += 10
        await client.submit()  # the failed task was refunded before anybody asked for it
        assert (await client.poll(failing["id"]))["status"] == "failed"
        assert simulator.account()["refused"] == 1


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("moderate", 80006, "Request violates content policy"),
        ("fail", 80001, "The provider failed to generate the output"),
        ("fail=1:80013", 80013, "The provider failed to generate the output"),
    ],
)
async def test_a_failed_task_is_refunded_before_it_is_seen(
    http: aiohttp.ClientSession, clock: Clock, fault: str, code: int, message: str
) -> None:
    async with Simulator(replace(QUICK, faults=parse_faults([fault])), clock=clock) as simulator:
        client = Client(http, simulator)
        task = await client.submit()
        assert await client.balance() == 9_370
        clock.now += 10
        assert await client.poll(task["id"]) == task | {
            "status": "failed",
            "output": None,
            "error": {"code": code, "message": message},
        }
        assert await client.balance() == 10_000
        account = simulator.account()
        assert (account["charged"], account["refunded"]) == (630, 630)
        assert account["tasks"][0]["refunded"]
        assert account["tasks"][0]["error"] == code
        status, _, _ = await client.call("GET", f"/media/tasks/{task['id']}/0.mp4")
        assert status == 404


async def test_generation_time_is_lognormal_and_repeats_with_the_seed(
    http: aiohttp.ClientSession, clock: Clock
) -> None:
    async def latencies(seed: int, count: int) -> list[float]:
        settings = replace(QUICK, median_seconds=8, sigma=0.5, seed=seed, balance=10**9)
        async with Simulator(settings, clock=clock) as simulator:
            client = Client(http, simulator)
            for _ in range(count):
                await client.submit()
            return [task["due_at"] - task["created_at"] for task in simulator.account()["tasks"]]

    seen = await latencies(1, 300)
    assert await latencies(1, 20) == seen[:20]
    assert await latencies(2, 20) != seen[:20]
    logs = [math.log(latency / 8) for latency in seen]
    assert abs(statistics.fmean(logs)) < 0.1
    assert abs(statistics.stdev(logs) - 0.5) < 0.07


async def test_the_rate_limit_of_posts(http: aiohttp.ClientSession, clock: Clock) -> None:
    async with Simulator(replace(QUICK, submits_per_minute=20, burst=2), clock=clock) as simulator:
        client = Client(http, simulator)
        await client.submit()
        task = await client.submit()
        for _ in range(3):  # a refused call takes nothing from the limit
            status, answer, response = await client.call("POST", "/api/v1/videos/generations", json=SHOT)
            assert (status, answer["error"]["code"], response.headers["Retry-After"]) == (429, 50001, "3")
        for _ in range(5):
            await client.poll(task["id"])
        other = Client(http, simulator)
        other.auth = {"Authorization": "Bearer rk_other"}
        await other.submit()
        clock.now += 3
        await client.submit()
        account = simulator.account()
        assert (account["accepted"], account["throttled"], account["charged"]) == (4, 3, 4 * 630)


async def test_the_rate_limit_of_all_calls(http: aiohttp.ClientSession, clock: Clock) -> None:
    async with Simulator(replace(QUICK, requests_per_minute=60), clock=clock) as simulator:
        client = Client(http, simulator)
        task = await client.submit()
        for path in (f"/api/v1/tasks/{task['id']}", "/api/v1/balance"):
            status, _, response = await client.call("GET", path)
            assert (status, response.headers["Retry-After"]) == (429, "1")
        clock.now += 1
        await client.poll(task["id"])


async def test_the_cap_of_tasks_in_flight(http: aiohttp.ClientSession, clock: Clock) -> None:
    async with Simulator(replace(QUICK, in_flight=2), clock=clock) as simulator:
        client = Client(http, simulator)
        await client.submit()
        clock.now += 5
        await client.submit()
        status, answer, response = await client.call("POST", "/api/v1/videos/generations", json=SHOT)
        assert (status, answer["error"]["code"], int(response.headers["Retry-After"]) >= 1) == (429, 50001, True)
        clock.now += 5
        await client.submit()


@pytest.mark.parametrize("status", [403, 410])
async def test_urls_expire_and_a_poll_renews_them(http: aiohttp.ClientSession, clock: Clock, status: int) -> None:
    async with Simulator(replace(QUICK, url_ttl=60, expired_status=status), clock=clock) as simulator:
        client = Client(http, simulator)
        task = await client.submit()
        clock.now += 10
        url = (await client.poll(task["id"]))["output"]["video_urls"][0]
        assert (await client.poll(task["id"]))["output"]["video_urls"] == [url]
        clock.now += 59
        assert (await client.call("GET", url))[0] == 200
        clock.now += 2
        assert (await client.call("GET", url))[0] == status
        renewed = (await client.poll(task["id"]))["output"]["video_urls"][0]
        assert renewed != url
        assert (await client.call("GET", renewed))[0] == 200
        for forged in (url.replace("expires=1", "expires=2"), url.split("?")[0], url.replace("expires=", "expires=x")):
            assert (await client.call("GET", forged))[0] == status


async def test_urls_that_no_poll_renews(http: aiohttp.ClientSession, clock: Clock) -> None:
    async with Simulator(replace(QUICK, url_ttl=60, renew_urls=False, usage=False), clock=clock) as simulator:
        client = Client(http, simulator)
        task = await client.submit()
        clock.now += 71
        done = await client.poll(task["id"])
        assert "usage" not in done
        assert (await client.call("GET", done["output"]["video_urls"][0]))[0] == 403


async def test_ranges_and_validators(http: aiohttp.ClientSession, clock: Clock) -> None:
    async with Simulator(replace(QUICK, clips="rendered"), clock=clock) as simulator:
        client = Client(http, simulator)
        task = await client.submit(duration=3, aspect_ratio="1:1")
        clock.now += 10
        url = (await client.poll(task["id"]))["output"]["video_urls"][0]
        status, whole, response = await client.call("GET", url)
        tag = response.headers["ETag"]
        size = len(whole)
        assert (status, tag[0], tag[-1], response.headers["Accept-Ranges"]) == (200, '"', '"', "bytes")

        status, none, response = await client.call("HEAD", url)
        assert (status, none, response.headers["Content-Length"], response.headers["ETag"]) == (
            200,
            b"",
            str(size),
            tag,
        )

        headers = {"Range": "bytes=100-", "If-Range": tag}
        status, rest, response = await client.call("GET", url, headers=headers)
        assert (status, rest) == (206, whole[100:])
        assert response.headers["Content-Range"] == f"bytes 100-{size - 1}/{size}"

        status, again, _ = await client.call("GET", url, headers=headers | {"If-Range": '"other"'})
        assert (status, again) == (200, whole)

        status, none, response = await client.call("GET", url, headers={"Range": f"bytes={size}-"})
        assert (status, none, response.headers["Content-Range"]) == (416, b"", f"bytes */{size}")

        status, none, _ = await client.call("GET", url, headers={"If-None-Match": tag})
        assert (status, none) == (304, b"")
        assert (await client.call("GET", url.replace("0.mp4", "1.mp4")))[0] == 404


async def test_the_own_pages_are_for_this_machine(http: aiohttp.ClientSession) -> None:
    async with Simulator(QUICK) as simulator:
        client = Client(http, simulator)
        for host in ("evil.example", "evil.example:80", "10.0.0.1"):
            status, _, _ = await client.call("GET", "/_simulator/account", headers={"Host": host})
            assert status == 403
        assert (await client.call("GET", "/_simulator/account", headers={"Host": "localhost:1"}))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "10.1.2.3", "::", ""])
async def test_only_loopback(host: str) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        await Simulator().start(host=host)


async def test_starting_twice_and_stopping_twice() -> None:
    simulator = Simulator(QUICK)
    await simulator.start()
    with pytest.raises(RuntimeError, match="running already"):
        await simulator.start()
    await simulator.stop()
    await simulator.stop()
    with pytest.raises(RuntimeError, match="not running"):
        simulator.set_faults(())
    await simulator.start()
    await simulator.stop()


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    async with Simulator(QUICK) as simulator:
        with pytest.raises(OSError, match="address already in use"):
            await Simulator(QUICK).start(port=int(simulator.url.rpartition(":")[2]))
