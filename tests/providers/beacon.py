"""A made-up service that can be asked by a submission's token, the provider that a package would bring for it, and its
double over real sockets. No shipped service has such a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchrunner.core.job import Problem
from batchrunner.providers.answers import DIALECT
from batchrunner.providers.base import Capabilities, LookupAnswer, ProviderKind, Unavailable
from batchrunner.providers.reapi import ReApi, ReApiSettings
from batchrunner.providers.replies import lookup_verdict
from batchrunner.simulator.tiny import png
from tests.providers.plugin import install
from tests.raw_server import Peer, Request, envelope, http

HEADER = "x-beacon-token"


def told(obj: dict[str, Any]) -> list[tuple[object, object]] | None:
    """The submissions that an answer lists."""
    rows = obj.get("submissions")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    return [(row.get("token"), row.get("task")) for row in rows]


class Beacon(ReApi):
    """reAPI's words, with a lookup."""

    name = "beacon"

    def _marks(self, token: str) -> Mapping[str, str]:
        return {HEADER: token}

    async def lookup(self, token: str, model: str) -> LookupAnswer:
        del model
        reply = await self._get(f"/submissions/{quote(token, safe='')}")
        if isinstance(reply, Problem):
            return Unavailable(reply)
        return lookup_verdict(reply, DIALECT, told, token, self._key, self._now())


KIND = ProviderKind(
    name="beacon",
    title="Beacon",
    capabilities=Capabilities(lookup=True, refunds=True),
    keys=("BEACON_KEY",),
    base_url="https://beacon.example",
    base_variable="BEACON_BASE_URL",
    source="https://beacon.example/docs",
    open=lambda access, clock, models: Beacon(ReApiSettings(access.base_url, access.key), clock, models),
)


def package(folder: Path) -> Path:
    """Write the package that brings it; returns what belongs on the path."""
    return install(folder, "from tests.providers.beacon import KIND\n", "beacon")


class Service:
    """The double, for `RawServer`.

    Attributes:
        posts: what happens to each POST in turn, the last for all that follow: `answered`; `lost`, accepted and then
            the connection is reset; `never`, reset as if it had not arrived.
        lookups: how a lookup is answered: `true`; `first`, with the first task under every token; `other`, with the
            first task and its own token; `two`, `bad id`, `html`, `503`, `reset`, `401`, `404`.
        late: lookups after which what was accepted is listed.
        tokens: token of each accepted submission -> its task.
    """

    def __init__(self, *posts: str, lookups: str = "true", late: int = 0) -> None:
        self.posts = posts
        self.lookups = lookups
        self.late = late
        self.sent = 0
        self.asked = 0
        self.tokens: dict[str, str] = {}

    async def __call__(self, peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            if request.method == "POST":
                becomes = self.posts[min(self.sent, len(self.posts) - 1)]
                self.sent += 1
                task = f"task-{self.sent}"
                if becomes != "never":
                    assert request.headers[HEADER] not in self.tokens, "a token came twice"
                    self.tokens[request.headers[HEADER]] = task
                if becomes != "answered":
                    peer.reset()
                    return
                await peer.send(http(200, {"id": task, "model": "beacon-1", "status": "processing"}))
            elif "/submissions/" in request.target:
                self.asked += 1
                if self.lookups == "reset":
                    peer.reset()
                    return
                await peer.send(self._lookup(request.target.rpartition("/")[2]))
            else:
                await peer.send(self._get(request))
        peer.gone.set()

    def _get(self, request: Request) -> bytes:
        name = request.target.rpartition("/")[2]
        if request.target.startswith("/files/"):
            return http(200, png(name), ("Content-Type", "image/png"))
        if name not in self.tokens.values():
            return http(404, envelope(20004, "no such task"))
        url = f"http://{request.headers['host']}/files/{name}.png"
        return http(200, {"id": name, "status": "completed", "output": {"image_urls": [url]}})

    def _lookup(self, token: str) -> bytes:
        mine = [{"token": token, "task": self.tokens[token]}] if token in self.tokens else []
        first = [{"token": one, "task": task} for one, task in self.tokens.items()][:1]
        match self.lookups:
            case "html":
                return http(200, "<html>hello</html>")
            case "503":
                return http(503, envelope())
            case "401":
                return http(401, envelope(10001, "no such key"))
            case "404":
                return http(404, envelope(20004, "no such submission"))
            case "other":
                mine = first
            case "first":
                mine = [{"token": token, "task": task["task"]} for task in first]
            case "two":
                mine = [*mine, {"token": token, "task": "task-99"}]
            case "bad id":
                mine = [{"token": token, "task": "../balance"}]
            case _ if self.asked <= self.late:
                mine = []
        return http(200, {"submissions": mine})
