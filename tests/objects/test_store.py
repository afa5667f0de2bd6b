"""One store after another asked directly: uploads in parts, rehearsals, strangers, and fsspec's other file systems."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from batchrunner.core.media import Facts
from batchrunner.core.places import Remote
from batchrunner.engine.files import Occupied
from batchrunner.engine.ground import Site, clear
from batchrunner.engine.objects import ObjectStore
from batchrunner.providers.fetch import Transient
from batchrunner.providers.objects import S3, Client, StoreUnusable, connect
from tests.objects.bucket import BUCKET, Bucket, Request

MIB = 1 << 20


def in_parts(place: Remote) -> Client:
    """A client for which 6 MiB are two parts: S3 takes none below 5 MiB but the last."""
    return S3(place, in_parts=5 * MIB, piece=5 * MIB, tries=1)


@pytest.fixture
def surroundings(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """A prefix of S3, and one of a file system that fsspec has itself."""
    if request.param == "s3":
        request.getfixturevalue("surroundings")
        yield Remote(f"s3://{BUCKET}/night")
        return
    import fsspec

    yield Remote(f"memory://{uuid4().hex}/night")
    fsspec.filesystem("memory").store.clear()


def part(folder: Path, data: bytes, name: str = "dog.mp4") -> tuple[Path, dict[str, object]]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.part"
    file.write_bytes(data)
    facts = {"task_id": "task_1", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return file, facts | {"media": {"duration_s": 5.0, "warnings": []}}


def nothing(point: str) -> None:
    del point


def test_placing_and_recognising(place: Remote, tmp_path: Path) -> None:
    store = ObjectStore(place, tmp_path)
    file, facts = part(store.parts, b"clip")
    names = ["dog.mp4", "dog.webm", "dog.task_1.mp4"]
    assert store.find(names, "task_1", "video") is None
    passed: list[str] = []
    placed = store.place(file, "dog.mp4", sidecar=facts, replaces=(), crash=passed.append)
    assert (placed.path, placed.sha256, placed.size, placed.already) == ("dog.mp4", facts["sha256"], 4, False)
    assert passed == ["place.sidecar", "place.renamed", "place.folder_synced"]
    assert not file.exists()

    file, _ = part(store.parts, b"half")
    again = store.find(names, "task_1", "video")
    assert again is not None
    assert again == (type(placed)("dog.mp4", placed.sha256, 4, already=True), Facts(duration_s=5.0))
    assert not file.exists()
    assert store.find(names, "task_2", "video") is None

    file, _ = part(store.parts, b"clip")
    assert store.place(file, "dog.mp4", sidecar=facts, replaces=(), crash=nothing).already
    file, other = part(store.parts, b"other")
    with pytest.raises(Occupied, match="its content is another"):
        store.place(file, "dog.mp4", sidecar=other, replaces=(), crash=nothing)
    assert file.exists()
    assert store.client.read("dog.mp4", 9) == b"clip"


def test_a_sidecar_alone(place: Remote, tmp_path: Path) -> None:
    """A run that died left it: replaced by its own job, kept from others, and swept."""
    store = ObjectStore(place, tmp_path)
    store.client.create("dog.mp4.json", json.dumps({"task_id": "task_0"}).encode())
    with pytest.raises(FileExistsError):
        store.client.create("dog.mp4.json", b"{}")
    file, facts = part(store.parts, b"clip")
    with pytest.raises(Occupied, match="does not name this job's task"):
        store.place(file, "dog.mp4", sidecar=facts, replaces=(), crash=nothing)
    store.sweep("dog.mp4", ["task_9"])
    assert store.client.names("") == {"dog.mp4.json"}
    store.place(file, "dog.mp4", sidecar=facts, replaces=["task_0"], crash=nothing)
    store.sweep("dog.mp4", ["task_1"])
    assert store.client.names("") == {"dog.mp4", "dog.mp4.json"}
    store.client.delete("dog.mp4")
    store.client.delete("dog.mp4")
    store.sweep("dog.mp4", ["task_1"])
    assert store.client.names("") == set()


def test_rehearsals_give_way(place: Remote, tmp_path: Path) -> None:
    store = ObjectStore(place, tmp_path)
    file, facts = part(store.parts, b"rehearsed")
    store.place(file, "dog.mp4", sidecar={**facts, "simulated": True}, replaces=(), crash=nothing)
    store.client.create("cat.mp4", b"somebody's")
    store.client.create("cow.mp4.json", b"[]")
    sites = [Site(n, store, name, ()) for n, name in enumerate(("dog.mp4", "cat.mp4", "cow.mp4", "new.mp4"))]
    renamed: list[tuple[int, str]] = []
    assert clear(sites, simulate=True, rename=lambda *told: renamed.append(told)) == []
    assert renamed == [(0, "dog.simulated.mp4"), (1, "cat.simulated.mp4"), (2, "cow.simulated.mp4")]
    for _ in range(2):  # the second finds a rehearsal of that name moved aside before
        problems = clear(sites, simulate=False, rename=lambda *_: None)
        assert problems == [
            f"{place}/cat.mp4 exists already",
            f"{place}/cow.mp4.json exists already, and is not this job's",
        ]
        file, _ = part(store.parts, b"rehearsed")
        store = ObjectStore(place, tmp_path)
        store.place(file, "dog.mp4", sidecar={**facts, "simulated": True}, replaces=(), crash=nothing)
        sites = [Site(site.job_id, store, site.name, ()) for site in sites]
    assert {"simulated/dog.mp4", "simulated/dog.mp4.json", "simulated/dog.old.mp4"} <= store.client.names("")


def test_large_files_go_in_parts(surroundings: Bucket, tmp_path: Path) -> None:
    store = ObjectStore(Remote(f"s3://{BUCKET}/night"), tmp_path, in_parts)
    data = os.urandom(6 * MIB)
    file, facts = part(store.parts, data)
    surroundings.fault = lambda request: "403" if "partNumber=2" in request.query else None
    with pytest.raises(StoreUnusable, match="AccessDenied"):
        store.place(file, "dog.mp4", sidecar=facts, replaces=(), crash=nothing)
    assert surroundings.uploads() == [], "what fails is ended"
    assert list(surroundings.objects()) == ["night/dog.mp4.json"]

    surroundings.fault = lambda request: "503" if "partNumber=2" in request.query else _no_abort(request)
    with pytest.raises(Transient, match="SlowDown"):
        store.place(file, "dog.mp4", sidecar=facts, replaces=(), crash=nothing)
    assert surroundings.uploads() == ["night/dog.mp4"], "as if the process had died there"

    surroundings.fault = lambda _: None
    store = ObjectStore(Remote(f"s3://{BUCKET}/night"), tmp_path, in_parts)
    store.place(file, "dog.mp4", sidecar=facts, replaces=(), crash=nothing)
    assert surroundings.uploads() == [], "the next run ended it"
    assert surroundings.objects()["night/dog.mp4"] == data
    head = store.client.head("dog.mp4")
    assert head is not None
    assert (head.size, head.sha256, head.task) == (6 * MIB, facts["sha256"], "task_1")
    assert [path.name for path in store.parts.iterdir()] == []


def _no_abort(request: Request) -> str | None:
    return "503" if request.method == "DELETE" and "uploadId" in request.query else None


def test_many_names_come_page_by_page(surroundings: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for n in range(4):
        surroundings.put(f"night/{n}.mp4", b"")
    client = connect(Remote(f"s3://{BUCKET}/night"))
    ask: Callable[..., object] = client._ask  # type: ignore[attr-defined]
    monkeypatch.setattr(client, "_ask", lambda method, **words: ask(method, **words, MaxKeys=3))
    assert client.names("") == {f"{n}.mp4" for n in range(4)}


def test_without_credentials_or_a_server(surroundings: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(Transient, match="can't be reached"):
        S3(Remote(f"s3://{BUCKET}/night"), tries=1).prove()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(StoreUnusable, match="credentials"):
        S3(Remote(f"s3://{BUCKET}/night"), tries=1).prove()


def test_a_scheme_whose_package_is_not_there() -> None:
    with pytest.raises(StoreUnusable, match=r"pip install 'batchrunner\[objects\]' gcsfs"):
        connect(Remote("gs://clips/night"))
