"""Outputs in object storage: complete or absent, with a sidecar, and never over somebody else's.

A part is fetched, checked and synced on this machine. Then the sidecar is put, then the object, each in one request
that the store carries out whole or not at all, and only where the name is free; then the part is removed. An object is
never there without its sidecar; a sidecar alone names its task, and is replaced or removed by the next try. So the
points at which a run may die mean what they mean for a folder (docs/safety.md): `place.renamed` is the store's answer,
which says that the object is durable too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from ..core.media import Facts
from ..core.places import Remote
from ..providers.disk import Steps
from ..providers.fetch import Transient
from ..providers.objects import Client, Head, connect
from .files import Crash, Occupied, Placed, part_path, strays
from .stores import ASIDE

_MAX_SIDECAR = 4 << 20


class ObjectStore:
    """A prefix in object storage; see `stores.Store`."""

    remote = True

    def __init__(
        self, place: Remote, parts: Path, opened: Callable[[Remote], Client] = connect, writer: str = ""
    ) -> None:
        """Args:
        place: the batch's prefix.
        parts: a folder of this machine; this store's own is in it.
        opened: makes the client, when it is needed first.
        writer: see `files.part_path`.
        """
        self._place = place
        self.parts = Path(os.path.abspath(parts)) / hashlib.sha256(place.url.encode()).hexdigest()[:16]
        self._opened = opened
        self._writer = writer
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._there: set[str] | None = None

    @property
    def client(self) -> Client:
        """Raises StoreUnusable."""
        with self._lock:
            if self._client is None:
                self._client = self._opened(self._place)
            return self._client

    def part(self, name: str) -> Path:
        return part_path(self.parts / name, self._writer)

    def tidy(self, names: Collection[str]) -> None:
        if self._writer:
            for name in names:
                with contextlib.suppress(OSError, Transient):
                    for stray in strays(self.parts / name, self._writer):
                        self.client.abort(stray)
                        self._drop(stray)

    def likely(self, names: Iterable[str]) -> list[str]:
        return list(names)

    def find(self, names: Collection[str], task_id: str, kind: str) -> tuple[Placed, Facts] | None:
        """By one listing of what begins as the names do; then by the sidecar's task, and the object's own hash."""
        del kind  # the facts stand in the sidecar
        there = self.client.names(os.path.commonprefix(list(names)))  # noqa: RUF071  keys are no paths
        for name in names:
            if name not in there or _sidecar(name) not in there:
                continue
            facts = self._facts(name)
            if facts is None or facts.get("task_id") != task_id:
                continue
            head = self.client.head(name)
            if head is None or not head.sha256 or head.sha256 != facts.get("sha256"):
                continue
            for other in names:
                self._drop(self.part(other))
            told = facts.get("media")
            return Placed(name, head.sha256, head.size, already=True), Facts.of(told if isinstance(told, dict) else {})
        return None

    def placing(
        self, part: Path, name: str, *, sidecar: Mapping[str, Any], replaces: Collection[str], crash: Crash
    ) -> Steps[Placed]:
        """`place`, as `stores.Store` has it."""
        yield from ()
        return self.place(part, name, sidecar=sidecar, replaces=replaces, crash=crash)

    def place(
        self, part: Path, name: str, *, sidecar: Mapping[str, Any], replaces: Collection[str], crash: Crash
    ) -> Placed:
        """As `files.placing`. An upload whose answer was lost is known again by its task and hash."""
        client = self.client
        task_id, digest, size = str(sidecar["task_id"]), str(sidecar["sha256"]), int(sidecar["bytes"])
        wanted, ours = Head(size, digest, task_id), {task_id, *replaces}
        client.abort(part)
        found = client.head(name)
        if found is None:
            if not stat.S_ISREG((about := os.lstat(part)).st_mode) or about.st_size != size:
                raise OSError(errno.EIO, "the downloaded file has changed since it was checked")
            self._write_sidecar(name, sidecar, ours)
            crash("place.sidecar")
            try:
                client.upload(part, name, wanted)
            except FileExistsError:
                found = client.head(name)
                if not _same(found, wanted):
                    client.delete(_sidecar(name))
                    raise Occupied(self._at(name), "it appeared just now") from None
            crash("place.renamed")
            crash("place.folder_synced")
        else:
            if not _same(found, wanted):
                raise Occupied(self._at(name), "its content is another")
            self._write_sidecar(name, sidecar, ours)
        self._drop(part)
        return Placed(name, digest, size, already=found is not None)

    def sweep(self, name: str, ours: Collection[str]) -> None:
        with contextlib.suppress(OSError, Transient):
            self.client.abort(self.part(name))
            self.tidy([name])
            if self.client.head(name) is None and self._task(name) in ours:
                self.client.delete(_sidecar(name))

    def survey(self) -> None:
        """Prove that it may be written to, and list what is there, once in a run."""
        if self._there is None:
            self.client.prove()
            self._there = self.client.names("")

    def precheck(self, name: str, ours: Collection[str]) -> str | None:
        self.survey()
        assert self._there is not None  # noqa: S101  just surveyed
        if name in self._there:
            return f"{self._at(name)} exists already"
        if _sidecar(name) in self._there and self._task(name) not in ours:
            return f"{self._at(_sidecar(name))} exists already, and is not this job's"
        return None

    def find_simulated(self, name: str) -> bool:
        facts = self._facts(name)
        if facts is None or facts.get("simulated") is not True:
            return False
        head = self.client.head(name)
        return head is None or (bool(head.sha256) and head.sha256 == facts.get("sha256"))

    def free_name(self, name: str, word: str) -> str:
        there = self.client.names("") if self._there is None else self._there
        return next(free for free in _others(name, word) if free not in there and _sidecar(free) not in there)

    def move_aside(self, name: str) -> None:
        """The clip first, as in a folder. Copied and then removed: what dies in between leaves a copy more."""
        client, aside = self.client, f"{ASIDE}/{name}"
        there = self._there if self._there is not None else client.names("")
        if aside in there or _sidecar(aside) in there:
            aside = self.free_name(aside, "old")
        for source, target in ((name, aside), (_sidecar(name), _sidecar(aside))):
            if source in there:
                client.copy(source, target)
                client.delete(source)
                there.discard(source)
                there.add(target)

    # --- The sidecar -------------------------------------------------------------------------------------

    def _facts(self, name: str) -> dict[str, Any] | None:
        data = self.client.read(_sidecar(name), _MAX_SIDECAR)
        try:
            facts = json.loads(data) if data is not None else None
        except (ValueError, RecursionError):
            return None
        return facts if isinstance(facts, dict) else None

    def _task(self, name: str) -> str | None:
        task = (self._facts(name) or {}).get("task_id")
        return task if isinstance(task, str) else None

    def _write_sidecar(self, name: str, facts: Mapping[str, Any], ours: Collection[str]) -> None:
        data = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        if self.client.head(_sidecar(name)) is None:
            with contextlib.suppress(FileExistsError):
                self.client.create(_sidecar(name), data)
                return
        if self._task(name) not in ours:
            raise Occupied(self._at(_sidecar(name)), "it does not name this job's task")
        self.client.replace(_sidecar(name), data)

    def _at(self, name: str) -> Remote:
        return self._place / name

    def _drop(self, part: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _sidecar(name: str) -> str:
    return name + ".json"


def _same(found: Head | None, wanted: Head) -> bool:
    """Whether an object is this task's, byte for byte."""
    return (
        found is not None
        and (found.size, found.sha256) == (wanted.size, wanted.sha256)
        and found.task in (None, wanted.task)
    )


def _others(name: str, word: str) -> Iterator[str]:
    path, number = PurePosixPath(name), 1
    while True:
        yield path.with_name(f"{path.stem}.{word}{number if number > 1 else ''}{path.suffix}").as_posix()
        number += 1
