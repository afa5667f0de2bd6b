"""A tree of plain values that knows where each of them stands.

A mapping is a `dict`, a sequence a `list`; both carry nothing but two indexes into their document's `marks`,
which holds the position of every node in the order in which they were read (8 bytes a node). The position of a
key or an item is found by walking its siblings, so errors pay for positions and valid manifests don't.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

MAX_COLLECTIONS = 1_000_000
"""Mappings and lists in a manifest and its files together: 32 MiB of `[]` would take more than a gigabyte."""
MAX_KEYS = 2000
"""Keys of one mapping. No valid one has as many; each unknown one costs a search for what was meant."""
MAX_DEPTH = 32
TOO_DEEP = f"nested too deeply: at most {MAX_DEPTH} levels are allowed"
LINE_SHIFT = 32
"""A mark is `line << LINE_SHIFT | column`, both 0-based."""


class Map(dict[str, Any]):
    """A mapping. Its marks: its own at `at`, then for each key the key's and its value's, up to `end`."""

    __slots__ = ("at", "end")
    at: int
    end: int


class Seq(list[Any]):
    """A sequence. Its marks: its own at `at`, then its items', up to `end`."""

    __slots__ = ("at", "end")
    at: int
    end: int


def _span(value: Any, at: int) -> int:
    """How many marks `value` takes that is expected at `at`; an alias of a collection takes one."""
    if isinstance(value, (Map, Seq)) and value.at == at:
        return value.end - value.at
    return 1


@dataclass(slots=True, eq=False)
class Document:
    """One file that was read.

    Attributes:
        name: the file as the user named it, as it stands in findings.
        root: the tree; None where the file is empty or broken.
        marks: positions, see `LINE_SHIFT`.
        prefix: what stands before the paths of its findings, such as `rows` for a CSV.
        typed: False where every scalar is text still to be typed by the model's schema (CSV).
        collections: mappings and lists read so far, those of the files before this one included.
    """

    name: str
    root: Any = None
    marks: array[int] = field(default_factory=lambda: array("Q"))
    prefix: str = ""
    typed: bool = True
    collections: int = 0
    _walked: tuple[int, int, int] = (-1, 0, 0)

    def admit(self, count: int = 1) -> str | None:
        """Count mappings and lists that are about to be read; why they are refused, if they are."""
        self.collections += count
        if self.collections <= MAX_COLLECTIONS:
            return None
        return f"too many mappings and lists: at most {MAX_COLLECTIONS} are allowed in a manifest and its files"

    def mark_of_key(self, mapping: Map, key: str) -> int:
        """Index of the mark of `key` in `mapping`."""
        at = mapping.at + 1
        for name, value in mapping.items():
            if name == key:
                return at
            at += 1 + _span(value, at + 1)
        return mapping.at

    def mark_of_value(self, mapping: Map, key: str) -> int:
        """Index of the mark of the value of `key` in `mapping`."""
        at = self.mark_of_key(mapping, key)
        return at + 1 if at != mapping.at else at

    def mark_of_item(self, sequence: Seq, index: int) -> int:
        """Index of the mark of item `index` of `sequence`. Found fast where the items are asked for in order."""
        walked, start, at = self._walked
        if walked != sequence.at or start > index:
            start, at = 0, sequence.at + 1
        for value in sequence[start:index]:
            at += _span(value, at)
        self._walked = (sequence.at, index, at)
        return at

    def position(self, mark: int) -> tuple[int, int]:
        """Line and column of a mark, 1-based."""
        if mark >= len(self.marks):
            return 1, 1
        packed = self.marks[mark]
        return (packed >> LINE_SHIFT) + 1, (packed & (1 << LINE_SHIFT) - 1) + 1


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a document: where findings about it point, and how its path reads."""

    document: Document
    mark: int
    path: str

    def position(self) -> tuple[int, int]:
        return self.document.position(self.mark)


@dataclass(slots=True)
class Node:
    """A mapping or sequence together with its document and path, to walk down from. Not frozen only because one is made
    of every shot at every walk, and a frozen one takes three times as long to make."""

    document: Document
    value: Any
    path: str = ""

    @property
    def place(self) -> Place:
        at = self.value.at if isinstance(self.value, (Map, Seq)) else 0
        return Place(self.document, at, self.path)

    def key(self, name: str) -> Place:
        """Where the key `name` stands; the mapping's own start where it doesn't exist."""
        if not isinstance(self.value, Map) or name not in self.value:
            return self.place
        return Place(self.document, self.document.mark_of_key(self.value, name), join(self.path, name))

    def at(self, step: str | int) -> Place:
        """Where the value of a key or an item stands; the collection's own start where it doesn't exist."""
        if isinstance(self.value, Map) and isinstance(step, str) and step in self.value:
            return Place(self.document, self.document.mark_of_value(self.value, step), join(self.path, step))
        if isinstance(self.value, Seq) and isinstance(step, int) and step < len(self.value):
            return Place(self.document, self.document.mark_of_item(self.value, step), join(self.path, step))
        return self.place

    def child(self, step: str | int) -> Node:
        """The node below `step`."""
        return Node(self.document, self.value[step], join(self.path, step))

    def find(self, steps: tuple[str | int, ...] | list[str | int]) -> Place:
        """The place of the value at the end of `steps`, or of the nearest collection above it."""
        node: Node = self
        for i, step in enumerate(steps):
            if i == len(steps) - 1:
                return node.at(step)
            below = node.child(step)
            if not isinstance(below.value, (Map, Seq)):
                return node.at(step)
            node = below
        return node.place


def join(path: str, step: str | int) -> str:
    """`path` with one more step: `shots`, `shots[3]`, `shots[3].prompt`."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
