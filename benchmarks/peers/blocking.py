"""The three calls of a job for peers whose workers are threads: a connection each, which stays open."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

_own = threading.local()


def _call(method: str, path: str, body: bytes | None = None) -> bytes:
    connection: http.client.HTTPConnection | None = getattr(_own, "connection", None)
    if connection is None:
        base = urllib.parse.urlsplit(os.environ["REAPI_BASE_URL"])
        connection = _own.connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=60)
    connection.request(method, path, body, {"Authorization": f"Bearer {os.environ['REAPI_API_KEY']}"})
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"HTTP {answer.status}")
    return data


def submit(request: dict[str, Any]) -> str:
    task: str = json.loads(_call("POST", "/api/v1/videos/generations", json.dumps(request).encode()))["id"]
    return task


def wait_for(task: str) -> str:
    """Poll until it is done; the output's URL."""
    while True:
        body = json.loads(_call("GET", f"/api/v1/tasks/{task}"))
        if body["status"] == "completed":
            url: str = body["output"]["video_urls"][0]
            return url
        time.sleep(1.0)


def fetch(url: str, target: str) -> None:
    Path(target).write_bytes(_call("GET", urllib.parse.urlsplit(url).path))
