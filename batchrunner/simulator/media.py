"""Outputs on demand: made in a bounded pool of threads, kept in a small cache, never stored."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from ..core.text import visible
from . import tiny
from .api import SHIPPED, Models
from .outputs import PLAIN, Given, made_as
from .store import NewTask

CONTENT_TYPES = {"mp4": "video/mp4", "png": "image/png", "wav": "audio/wav"}
"""Content type by file extension."""

CACHE_BYTES = 32 << 20
"""Bytes of finished files that are kept, least recently used first out: some 500 clips."""

_SHORT_SIDE = {"480p": 480, "540p": 540, "720p": 720, "1080p": 1080, "1k": 1024, "2k": 2048, "4k": 2160}
_RATIO = re.compile(r"(\d{1,2}):(\d{1,2})")


@dataclass(frozen=True, slots=True)
class File:
    """A finished output. `etag` is strong and quoted, made of its bytes."""

    data: bytes
    etag: str


def picture_size(told: dict[str, Any]) -> tuple[int, int]:
    """Width and height in pixels, both even: the short side by resolution, the long one by ratio.

    Takes the common names (`Model.common`). 1:1 at 720p is 720x720. What says neither is 720p and 16:9.
    """
    short = _SHORT_SIDE.get(str(told.get("resolution")).lower(), 720)
    ratio = _RATIO.fullmatch(str(told.get("aspect_ratio")))
    wide, high = (int(ratio[1]), int(ratio[2])) if ratio else (16, 9)
    if not wide or not high:
        wide, high = 16, 9
    long = round(short * max(wide, high) / min(wide, high) / 2) * 2
    return (long, short) if wide >= high else (short, long)


def clip_seconds(told: dict[str, Any]) -> int:
    """Length of the clip asked for, seconds; 5 where the request has no whole number."""
    seconds = told.get("duration")
    return seconds if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds <= 60 else 5


def make(task: NewTask, name: str, given: Given = PLAIN, *, rendered: bool, models: Models = SHIPPED) -> bytes:
    """The bytes of a task's file of that name: always the same for the same task."""
    model = models[task.model]
    request = orjson.loads(task.request)
    told = model.common(request)
    extension = made_as(given, name)
    which = "" if given == PLAIN else f" · {name.partition('.')[0]}"
    seconds = given.seconds or clip_seconds(told)
    if extension == "wav":
        return tiny.wav(task.id + which, 1)
    if not rendered and extension != "jpg":
        return tiny.mp4(task.id + which, seconds) if extension == "mp4" else tiny.png(task.id + which)
    from . import clips  # PyAV and Pillow take 0.1 s to import: only when something is drawn

    width, height = picture_size(told)
    if given.short_side:
        width, height = (round(side * given.short_side / min(width, height) / 2) * 2 for side in (width, height))
    words = (task.model, *(str(told[k]) for k in ("resolution", "aspect_ratio") if k in told))
    card = clips.Card(
        title=visible(task.label, 200) or f"task {task.number}",
        text=visible(str(request.get("prompt") or told.get("first_frame") or ""), 2000),
        footer=task.id + which,
        detail=" · ".join(words),
        width=width,
        height=height,
        seconds=seconds,
        sound=told.get("audio") is True,
    )
    return clips.clip(card) if extension == "mp4" else clips.still(card, jpeg=extension == "jpg")


class MediaShelf:
    """Makes files, each once at a time, and keeps the latest ones."""

    def __init__(self, *, rendered: bool, models: Models = SHIPPED) -> None:
        self._models = models
        self._rendered = rendered
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="simulator-clip")
        self._ready: OrderedDict[tuple[int, str], File] = OrderedDict()
        self._size = 0
        self._making: dict[tuple[int, str], asyncio.Future[File]] = {}

    def close(self) -> None:
        """Wait for files in the making and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def file(self, task: NewTask, name: str, given: Given = PLAIN) -> File:
        """A file of a task, by its name."""
        key = task.number, name
        ready = self._ready.get(key)
        if ready is not None:
            self._ready.move_to_end(key)
            return ready
        if not self._rendered:
            return _file(make(task, name, given, rendered=False, models=self._models))
        making = self._making.get(key)
        if making is None:
            making = asyncio.get_running_loop().run_in_executor(self._pool, self._make, task, name, given)
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        file = await asyncio.shield(making)
        self._keep(key, file)
        return file

    def _make(self, task: NewTask, name: str, given: Given) -> File:
        return _file(make(task, name, given, rendered=True, models=self._models))

    def _keep(self, key: tuple[int, str], file: File) -> None:
        if key in self._ready or len(file.data) > CACHE_BYTES:
            return
        self._ready[key] = file
        self._size += len(file.data)
        while self._size > CACHE_BYTES:
            _, oldest = self._ready.popitem(last=False)
            self._size -= len(oldest.data)


def _file(data: bytes) -> File:
    return File(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) of a Range header (RFC 9110); None to send everything.

    Raises:
        ValueError: the range begins beyond the file (416). What is malformed, or several ranges, is ignored.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        if not int(match[2]) or not size:
            raise ValueError("range not satisfiable")
        return max(0, size - int(match[2])), size
    start = int(match[1])
    end = size if match[2] == "" else min(size, int(match[2]) + 1)
    if match[2] != "" and int(match[2]) < start:
        return None
    if start >= size:
        raise ValueError("range not satisfiable")
    return start, end
