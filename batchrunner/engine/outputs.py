"""The files that a finished task gives: which there are, what each is called, and what stands beside it.

One output has the job's plain name. Several have `-1`, `-2`, ... before the extension, in the task's order; a clip's
last frame has `-last-frame`. How many come is known only when they have come, so that such a name may be one that
another job has planned: then, and wherever a name is taken on the disk, the end of the task's id stands in it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from ..catalogue import Model
from ..core.job import Downloading, Job
from ..core.media import LAST_FRAME, Ordered
from ..core.media import ordered as read_order

EXTENSIONS = {"video": ".mp4", "image": ".png", "audio": ".mp3"}
"""The usual extension by kind of output, where the manifest gave no name."""

OTHERS = {
    "video": (".webm", ".mov", ".mkv", ".gif", ".webp", ".avi"),
    "image": (".jpg", ".webp", ".avif", ".gif", ".heic"),
    "audio": (".wav", ".m4a", ".ogg", ".flac", ".mp4", ".webm"),
}
"""The other extensions that `providers.media` gives."""

MAX_NAME = 232
"""Bytes of a file name without its extension: 255, less what `.part` or `.json` and the longest extension take."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that a finished task gives.

    Attributes:
        number: 1, 2, ... in the task's order; `LAST_FRAME`.
        of: how many there are, the last frame not counted.
        url: where it can be fetched.
        kind: `video`, `image` or `audio`.
        stem: its name relative to the output folder, without extension.
        suffix: the extension that the manifest gave it, with its dot; None for that of what comes.
        mark: what sets it apart where its name is another job's: the end of the task's id.
        crowded: whether its name is one that another job has planned.
    """

    number: int
    of: int
    url: str
    kind: str
    stem: str
    suffix: str | None
    mark: str
    crowded: bool = False

    @property
    def last_frame(self) -> bool:
        return self.number == LAST_FRAME

    @property
    def alone(self) -> bool:
        """Whether it has the job's plain name."""
        return self.of == 1 and not self.last_frame

    def name(self, extension: str | None = None) -> str:
        """Its name, relative to the output folder, with the extension of what came, or else the usual one."""
        return self._named(self._marked if self.crowded else self.stem, extension)

    def name_beside(self, extension: str) -> str:
        """Its name where the plain one is taken."""
        return self._named(self._marked, extension)

    def names(self) -> Iterator[str]:
        """Every name that it may have been given."""
        extensions = (EXTENSIONS[self.kind], *OTHERS[self.kind]) if self.suffix is None else (self.suffix,)
        for stem in (self.stem, self._marked):
            for extension in extensions:
                yield self._named(stem, extension)

    @property
    def _marked(self) -> str:
        return f"{self.stem}.{self.mark}"

    def _named(self, stem: str, extension: str | None) -> str:
        return stem + (self.suffix if self.suffix is not None else extension or EXTENSIONS[self.kind])

    def facts(self) -> dict[str, Any]:
        """What a sidecar says of which file it is, where there are several."""
        if self.last_frame:
            return {"role": "last_frame"}
        return {} if self.of == 1 else {"output": self.number, "outputs": self.of}


def plan(job: Job, kind: str) -> list[Wanted]:
    """The files that a finished task gives, in the order in which they are fetched: what was ordered first.

    Args:
        job: downloading.
        kind: the model's kind of output.
    """
    fact = job.fact
    assert isinstance(fact, Downloading)  # noqa: S101  only such jobs are fetched
    suffix = PurePosixPath(job.output).suffix if job.named else None
    stem = job.output.removesuffix(suffix) if suffix else job.output
    links = [(url, kind) for url in fact.urls]
    if kind in fact.kinds:
        links = sorted(zip(fact.urls, fact.kinds, strict=True), key=lambda link: link[1] != kind)
    mark = fact.task_id[-8:]
    found = [
        Wanted(
            number,
            len(links),
            url,
            of_kind,
            stem if len(links) == 1 else _with(stem, f"-{number}"),
            suffix if of_kind == kind else None,
            mark,
        )
        for number, (url, of_kind) in enumerate(links, 1)
    ]
    if fact.last_frame_url is not None:
        last = _with(stem, "-last-frame")
        found.append(Wanted(LAST_FRAME, len(links), fact.last_frame_url, "image", last, None, mark))
    return found


def _with(stem: str, ending: str) -> str:
    """A longer name that still fits into 255 bytes with all that stands beside it; a shortened one has a hash."""
    folder, slash, name = stem.rpartition("/")
    room = MAX_NAME - len(ending)
    if len(name.encode()) > room:
        short = name.encode()[: room - 9].decode(errors="ignore")
        name = f"{short}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{folder}{slash}{name}{ending}"


def names_to_ask(wanted: Collection[Wanted]) -> list[str]:
    """The names that may be other jobs' too, as a manifest plans them: with and without extension."""
    return [name for one in wanted if not one.alone for name in (one.stem, *one.names())]


def set_apart(wanted: Collection[Wanted], taken: Set[str]) -> list[Wanted]:
    """The same files; those whose name is in `taken` get one that is theirs alone."""
    return [replace(one, crowded=not taken.isdisjoint((one.stem, *one.names()))) for one in wanted]


def ordered(model: Model | None, request: Mapping[str, Any]) -> Ordered:
    """What a job's request asks for; of an unknown model nothing is known."""
    if model is None:
        return Ordered()
    # The common names say in one way for all models what their own say in many.
    told = {**model.defaults, **request, **model.common(request)}
    return read_order(model.output, told)
