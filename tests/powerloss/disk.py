"""A disk under a power cut: what was synced is there, of the rest anything may be.

Data that no sync has covered may be there, not, or in part, a sector of 512 bytes at a time, and in any order. A name
that no sync of its folder has covered may be there or not, each change by itself. A file may have its new size and not
its new bytes (zeros, or what stood on the disk before).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.powerloss.record import ROOT_NODE, Cut, Entered, Step, Synced, Wrote

SECTOR = 512
Keep = Callable[[], bool]


@dataclass(slots=True)
class _Data:
    """A file: what is durable, and what was done since, in order."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Wrote | Cut] = field(default_factory=list)


@dataclass(slots=True)
class _Names:
    """A folder."""

    durable: dict[str, int] = field(default_factory=dict)
    pending: list[Entered] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Image:
    """What is on the disk after a cut: contents by path, and folders, parents first."""

    files: dict[str, bytes]
    folders: list[str]


@dataclass(frozen=True, slots=True)
class Luck:
    """How much of what was not synced survives: a chance for each sector, and for each change of names.

    Attributes:
        data, names: chances, 0 to 1.
        seed: of the dice.
    """

    data: float
    names: float
    seed: int = 0


EXTREMES = (Luck(0, 0), Luck(1, 1), Luck(0, 1), Luck(1, 0))
"""Nothing survives; everything does; names without their data; data without names."""


def lucks(seed: int, number: int) -> list[Luck]:
    """The extremes, and so many in between."""
    dice = random.Random(seed)
    chances = (0.0, 0.1, 0.5, 0.9, 1.0)
    between = [Luck(dice.choice(chances), dice.choice(chances), dice.randrange(1 << 30)) for _ in range(number)]
    return [*EXTREMES, *between]


class Disk:
    """The disk under a running program."""

    def __init__(self) -> None:
        self._files: dict[int, _Data] = {}
        self._folders: dict[int, _Names] = {ROOT_NODE: _Names()}

    def do(self, step: Step) -> bool:
        """Let a step happen; whether it concerned the disk."""
        match step:
            case Wrote() | Cut():
                self._files[step.node].pending.append(step)
            case Entered():
                self._folders[step.folder].pending.append(step)
                for node in step.names.values():
                    if node is not None and step.makes:
                        self._folders.setdefault(node, _Names())
                    elif node is not None:
                        self._files.setdefault(node, _Data())
            case Synced():
                self._sync(step)
            case _:
                return False
        return True

    def _sync(self, sync: Synced) -> None:
        if (folder := self._folders.get(sync.node)) is not None:
            late = [e for e in folder.pending if e.ended >= sync.began]
            for entered in folder.pending:
                if entered.ended < sync.began:
                    _rename(folder.durable, entered)
            folder.pending = late
        if (file := self._files.get(sync.node)) is not None:
            for change in file.pending:
                if change.ended < sync.began:
                    _apply(file.durable, change)
            file.pending = [c for c in file.pending if c.ended >= sync.began]

    @property
    def settled(self) -> bool:
        """Whether everything is durable: then there is one image only."""
        return not any(f.pending for f in self._files.values()) and not any(f.pending for f in self._folders.values())

    def image(self, luck: Luck) -> Image:
        """The disk as a cut leaves it now."""
        dice = random.Random(luck.seed)
        image = Image({}, [])
        self._fill(image, ROOT_NODE, "", luck, dice, {})
        return image

    def _fill(
        self, image: Image, node: int, path: str, luck: Luck, dice: random.Random, known: dict[int, bytes]
    ) -> None:
        folder = self._folders[node]
        names = dict(folder.durable)
        for entered in folder.pending:
            if _chance(dice, luck.names):
                _rename(names, entered)
        for name, child in sorted(names.items()):
            where = f"{path}/{name}" if path else name
            if child in self._folders:
                image.folders.append(where)
                self._fill(image, child, where, luck, dice, known)
                continue
            if child not in known:  # two names may stand for one file
                known[child] = _torn(self._files[child], luck.data, dice)
            image.files[where] = known[child]


def _chance(dice: random.Random, chance: float) -> bool:
    return dice.random() < chance


def _rename(names: dict[str, int], entered: Entered) -> None:
    for name, node in entered.names.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _apply(data: bytearray, change: Wrote | Cut) -> None:
    if isinstance(change, Cut):
        if change.size < len(data):
            del data[change.size :]
        else:
            data.extend(bytes(change.size - len(data)))
        return
    _put(data, change.offset, change.data)


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _torn(file: _Data, chance: float, dice: random.Random) -> bytes:
    """The file with a part of what was not synced."""
    if not file.pending:
        return bytes(file.durable)
    data = bytearray(file.durable)
    furthest = len(data)
    for change in file.pending:
        if isinstance(change, Cut):
            if _chance(dice, chance):
                _apply(data, change)
            furthest = max(furthest, change.size)
            continue
        end = change.offset + len(change.data)
        furthest = max(furthest, end)
        here = change.offset
        while here < end:
            there = min(end, (here // SECTOR + 1) * SECTOR)
            if _chance(dice, chance):
                _put(data, here, change.data[here - change.offset : there - change.offset])
            here = there
    if 0 < chance < 1 and len(data) < furthest and dice.random() < 0.3:  # the size came through, the bytes did not
        extra = dice.randrange(1, furthest - len(data) + 1)
        data.extend(bytes(extra) if dice.random() < 0.5 else dice.randbytes(extra))
    return bytes(data)
