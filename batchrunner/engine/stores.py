"""Where outputs are kept, by what the engine needs of it: a folder of this machine, or object storage.

What is promised is the same for both: an output under its final name is complete, its sidecar stands beside it, and
nobody else's is overwritten. `files` has the folder's way, `objects` the way of object storage.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ..core.media import Facts
from ..core.places import Place, Remote, place_of
from ..providers import media
from ..providers.disk import Steps
from . import files
from .files import Placed

ASIDE = "simulated"
"""Folder in the output folder that rehearsed clips are moved to."""


class Store(Protocol):
    """The outputs of a batch. Names are relative to it, `/` between parts. All but `likely` block: use a thread.

    Raises, wherever it is asked: `OSError` where it can't be used, `Transient` where it may be asked again soon,
    `UnsafePath` where a name leads out of it.
    """

    parts: Path
    """The folder of this machine into which outputs are fetched, checked and synced before they get their name."""

    remote: bool
    """Whether placing waits for more than this machine's disk."""

    def part(self, name: str) -> Path:
        """Where an output is on its way."""

    def tidy(self, names: Collection[str]) -> None:
        """Remove what other writers, who are dead or late, have left on the way to an output that is home, or may never
        come; `names` as those it has on its way and at home. Raises nothing."""

    def likely(self, names: Iterable[str]) -> list[str]:
        """The names that `find` should look at. Waits for nothing but a look at a folder."""

    def find(self, names: Collection[str], task_id: str, kind: str) -> tuple[Placed, Facts] | None:
        """The output of a task where an earlier try had placed it, under one of these names; None where not."""

    def placing(
        self,
        part: Path,
        name: str,
        *,
        sidecar: Mapping[str, Any],
        replaces: Collection[str],
        crash: files.Crash,
    ) -> Steps[Placed]:
        """Give a complete part its final name, with its sidecar; see `files.placing`. Raises Occupied."""

    def sweep(self, name: str, ours: Collection[str]) -> None:
        """Remove what a run that died while it placed an output has left, where that may never come. Raises nothing."""

    def survey(self) -> None:
        """Look whether it can be used, and what is there already, before anything is paid for."""

    def precheck(self, name: str, ours: Collection[str]) -> str | None:
        """Why a name can't be used for a new output; see `files.precheck`."""

    def find_simulated(self, name: str) -> bool:
        """Whether the simulator made what stands there."""

    def free_name(self, name: str, word: str) -> str:
        """A free name beside another."""

    def move_aside(self, name: str) -> None:
        """Move what the simulator made, with its sidecar, into `ASIDE`."""


class FolderStore:
    """A folder of this machine. Parts are in the folder itself, so that a rename is all it takes."""

    remote = False

    def __init__(self, root: Path, writer: str = "") -> None:
        """Args:
        writer: see `files.part_path`.
        """
        self.parts = root
        self._writer = writer
        self._root = os.path.join(root, "")

    def part(self, name: str) -> Path:
        return files.part_path(self.parts / name, self._writer)

    def tidy(self, names: Collection[str]) -> None:
        if self._writer:
            for name in names:
                with suppress(OSError):
                    for stray in files.strays(self.parts / name, self._writer):
                        os.unlink(stray)

    def likely(self, names: Iterable[str]) -> list[str]:
        """A look is cheaper than a thread, and nearly always says no."""
        return [name for name in names if os.path.lexists(self.parts / name)]

    def find(self, names: Collection[str], task_id: str, kind: str) -> tuple[Placed, Facts] | None:
        for name in names:
            placed = files.find_placed(self.parts / name, self.parts, task_id)
            if placed is not None:
                return placed, facts_of(self.parts / name, kind)
        return None

    def placing(
        self,
        part: Path,
        name: str,
        *,
        sidecar: Mapping[str, Any],
        replaces: Collection[str],
        crash: files.Crash,
    ) -> Steps[Placed]:
        target, root = self.parts / name, self.parts
        return files.placing(part, target, root, sidecar, replaces=replaces, writer=self._writer, crash=crash)

    def sweep(self, name: str, ours: Collection[str]) -> None:
        files.sweep(self.parts / name, self.parts, ours, self._writer)
        self.tidy([name])

    def survey(self) -> None:
        """Nothing to do: each name is looked at when it is asked about, and the folder before each POST."""

    def precheck(self, name: str, ours: Collection[str]) -> str | None:
        where = f"{self._root}{name}"  # a path is made only where something stands: it takes longer than the looks
        if os.path.lexists(where) or os.path.lexists(where + files.SIDECAR):
            return files.precheck(self.parts / name, ours)
        return None

    def find_simulated(self, name: str) -> bool:
        return files.find_simulated(self.parts / name)

    def free_name(self, name: str, word: str) -> str:
        return files.free_name(self.parts / name, word).relative_to(self.parts).as_posix()

    def move_aside(self, name: str) -> None:
        """The clip first: what a run that dies in between leaves is still known, by its sidecar, as a rehearsal's."""
        target, aside = self.parts / name, self.parts / ASIDE / name
        aside.parent.mkdir(parents=True, exist_ok=True)
        there = os.path.lexists(target)
        if os.path.lexists(files.sidecar_path(aside)) or (there and os.path.lexists(aside)):
            aside = files.free_name(aside, "old")
        if there:
            os.rename(target, aside)
        os.rename(files.sidecar_path(target), files.sidecar_path(aside))


class Stores:
    """The stores of a run, each opened once."""

    def __init__(self, parts: Path = Path("batchrunner.parts")) -> None:
        """Args:
        parts: the folder for what is on its way to object storage; made when it is needed.
        """
        self._parts = parts
        self._known: dict[Place, Store] = {}
        self._by_text: dict[str, Store] = {}
        self.writer = ""
        """Of several that write to the same places, this one's part of a name; set before a store is opened."""

    def at(self, text: str) -> Store:
        """The store at a place as the ledger has it: each text is looked at once."""
        if text not in self._by_text:
            self._by_text[text] = self.of(place_of(text))
        return self._by_text[text]

    def of(self, place: Place) -> Store:
        """The store at a place. Opens no connection."""
        if place not in self._known:
            self._known[place] = self._open(place)
        return self._known[place]

    def _open(self, place: Place) -> Store:
        if isinstance(place, Remote):
            from .objects import ObjectStore

            return ObjectStore(place, self._parts, writer=self.writer)
        return FolderStore(place, self.writer)

    def tidy(self) -> None:
        """Remove the folders for parts that are empty. Raises nothing."""
        for folder, _, _ in os.walk(self._parts, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue


def facts_of(path: Path, kind: str) -> Facts:
    """What a finished file says of itself. Blocks."""
    try:
        return media.check(path, kind).facts
    except media.NotMedia:  # it was whole when it got its name: only where it changed since
        return Facts()
