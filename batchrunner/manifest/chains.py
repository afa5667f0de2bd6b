"""`${shots.SHOT.output_url}`: a shot uses another's output. Which job is meant, and what its request is told meanwhile.

A reference is the whole value of a request field, or of an item in it. It names exactly one job:

    ${shots.still.output_url}                 of the shot `still`; where both have a matrix, at the same point
    ${shots.still.2.output_url}               its second take
    ${shots.still.take.output_url}            the take with the number of the one that asks
    ${shots.still@place=beach-1.output_url}   the job with that key

and `last_frame_url` in the place of `output_url`. While a request is made and checked, a stand-in is in that place, a
URL that leads nowhere (`.invalid`, RFC 2606), so that the model's schema can say whether a URL may stand there at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from ..core.chain import URLS, Need, Steps, replaced
from ..core.keys import fingerprint, job_key
from ..core.text import visible
from .findings import did_you_mean, listed, quoted
from .located import Node
from .scalars import typed
from .templates import SHOTS

STAND_IN = "https://shots.invalid/"
_ALONE = re.compile(r"\$\{shots\.([^${}]*)\}")
_TAKE = re.compile(r"(.+)\.([1-9][0-9]{0,5}|take)", re.DOTALL)
LISTED = 12
"""References that a message offers."""


def stand_in(text: str) -> str | None:
    """What takes the place of a text that is a reference; None for any other text."""
    found = _ALONE.fullmatch(text)
    return None if found is None else STAND_IN + quote(found[1], safe="@=+._-")


def own_take(text: str) -> bool:
    """Whether a text refers to the take with its own job's number."""
    return ".take." in text and _ALONE.fullmatch(text) is not None


def stand_ins(request: Mapping[Any, Any]) -> Iterator[tuple[Steps, str]]:
    """Where stand-ins are in a request, and what each refers to: `still.output_url`."""
    for name, value in request.items():
        if type(value) is str:
            if value.startswith(STAND_IN):
                yield (name,), unquote(value.removeprefix(STAND_IN))
        elif isinstance(value, (dict, list)):
            inner = value if isinstance(value, dict) else dict(enumerate(value))
            yield from (((name, *steps), text) for steps, text in stand_ins(inner))


def standing_in(request: Mapping[str, Any]) -> dict[str, Any]:
    """A stored request as a model's schema can judge it."""
    return replaced(request, lambda need: STAND_IN + quote(f"{need.job}.{need.url}", safe="@=+._-"))


class BadReference(ValueError):
    """A reference that names no job, or several; the message says why, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """The one job that a reference means."""

    shot: str
    point: Mapping[str, Any]
    take: int
    url: str

    @property
    def key(self) -> str:
        return job_key(self.shot, self.point, self.take)


@dataclass(slots=True)
class Parent:
    """A shot that may be referred to."""

    id: str
    points: list[Mapping[str, Any]]
    takes: int
    _at: dict[tuple[str, ...], dict[tuple[Any, ...], list[Mapping[str, Any]]]] = field(default_factory=dict)
    _keys: dict[str, tuple[Mapping[str, Any], int]] = field(default_factory=dict)

    def agreeing(self, point: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Its points that have the values of `point` on every axis that both have."""
        if not self.points or not point:
            return self.points
        axes = tuple(sorted(self.points[0].keys() & point.keys()))
        if axes not in self._at:
            found = self._at[axes] = {}
            for own in self.points:
                found.setdefault(tuple(typed(own[a]) for a in axes), []).append(own)
        return self._at[axes].get(tuple(typed(point[a]) for a in axes), [])

    def keyed(self, key: str) -> tuple[Mapping[str, Any], int] | None:
        """The point and the take of a job by its key."""
        if not self._keys:
            self._keys = {job_key(self.id, p, t): (p, t) for p in self.points for t in range(1, self.takes + 1)}
        return self._keys.get(key)


class Chains:
    """What the references of a manifest mean."""

    def __init__(self, shots: Callable[[], Iterator[Node]], parent: Callable[[Node], Parent | None]) -> None:
        """Args:
        shots: every shot as it is written.
        parent: what can be referred to in one; None where its matrix or its takes can't be used.
        """
        self._shots = shots
        self._parent = parent
        self._nodes: dict[str, Node] | None = None
        self._parents: dict[str, Parent | None] = {}
        self._marks: dict[str, str] = {}

    def node(self, shot: str) -> Node | None:
        """A shot by its id."""
        if self._nodes is None:
            self._nodes = {}
            for node in self._shots():
                name = node.value.get("id")
                if isinstance(name, str):
                    self._nodes.setdefault(name, node)
        return self._nodes.get(shot)

    def target(self, text: str, point: Mapping[str, Any], take: int) -> Target | None:
        """The job that `text` (such as `still.output_url`) means in a job at `point` and `take`; None where the shot is
        there but broken, which is said elsewhere.

        Raises:
            BadReference: none, or not one.
        """
        middle, _, url = text.rpartition(".")
        if url not in URLS:
            whole = middle if middle and not self._exists(text) else text
            either = " or ".join(f"${{shots.{visible(whole, 60)}.{u}}}" for u in URLS)
            raise BadReference(
                f"{_shown(text)} says not which output{did_you_mean(url, URLS) if middle else ''}; write {either}"
            )
        shot, asked = self._split(middle)
        node = self.node(shot)
        if node is None:
            names = list(self._nodes or ())
            raise BadReference(
                f"unknown shot {quoted(shot)} in {_shown(text)}{did_you_mean(shot, names)}; shots: {listed(names)}"
            )
        if shot not in self._parents:
            self._parents[shot] = self._parent(node)
        parent = self._parents[shot]
        if parent is None:
            return None
        if "@" in middle:
            found = parent.keyed(middle)
            if found is None:
                raise BadReference(f"{_shown(text)} names no job of {visible(shot, 60)}{self._offer(parent, url)}")
            return Target(shot, *found, url)
        return self._one(parent, text, url, point, take if asked == "take" else asked)

    def shot_of(self, text: str) -> str | None:
        """The shot that `text` (as of `target`) names, whatever it says of its jobs; None where there is none."""
        name = self._split(text.rpartition(".")[0])[0]
        return None if self.node(name) is None else name

    def _exists(self, text: str) -> bool:
        return self.node(self._split(text)[0]) is not None

    def _split(self, middle: str) -> tuple[str, str | int]:
        """The shot, and the take that is asked for: a number, `take`, or empty. An id that looks so is an id."""
        if "@" in middle:
            return middle.partition("@")[0], ""
        with_take = _TAKE.fullmatch(middle) if self.node(middle) is None else None
        if with_take is None:
            return middle, ""
        return with_take[1], "take" if with_take[2] == "take" else int(with_take[2])

    def _one(self, parent: Parent, text: str, url: str, point: Mapping[str, Any], take: str | int) -> Target:
        points = parent.agreeing(point)
        if len(points) != 1:
            why = (
                f"means {len(points)} points of the matrix of {visible(parent.id, 60)}"
                if points
                else "means no job here"
            )
            raise BadReference(f"{_shown(text)} {why}{self._offer(parent, url)}")
        if isinstance(take, str):
            if parent.takes > 1:
                raise BadReference(
                    f"{_shown(text)} means {parent.takes} takes; name one of them (or `take`, the one with the same "
                    f"number){self._offer(parent, url, points[0])}"
                )
            take = 1
        if take > parent.takes:
            raise BadReference(
                f"{_shown(text)}: {visible(parent.id, 60)} has no take {take}{self._offer(parent, url, points[0])}"
            )
        return Target(parent.id, points[0], take, url)

    def _offer(self, parent: Parent, url: str, point: Mapping[str, Any] | None = None) -> str:
        """What could be written."""
        points = parent.points if point is None else [point]
        found: list[str] = []
        for p in points:
            for t in range(1, parent.takes + 1):
                if len(found) > LISTED:
                    break
                plain = f"{parent.id}.{t}" if parent.takes > 1 else parent.id
                name = plain if point is not None or not p else job_key(parent.id, p, t)
                found.append(f"${{shots.{visible(name, 80)}.{url}}}")
        return "; allowed: " + ", ".join(found[:LISTED]) + (", …" if len(found) > LISTED else "") if found else ""

    # --- Linking, once the manifest is known to be valid -------------------------------------------------

    def linked(
        self,
        request: dict[str, Any],
        point: Mapping[str, Any],
        take: int,
        made: Callable[[Target], tuple[str, str, dict[str, Any]]],
    ) -> dict[str, Any]:
        """The request with references in the place of its stand-ins.

        Args:
            request: of a job at `point` and `take`.
            point, take: where.
            made: the provider, the model and the request of a target, stand-ins in it.
        """
        targets = self._targets(request, point, take)
        waiting = [*targets.values()]
        while waiting:  # a chain may be longer than Python's stack is deep
            target = waiting[-1]
            if target.key in self._marks:
                waiting.pop()
                continue
            provider, model, theirs = made(target)
            inner = self._targets(theirs, target.point, target.take)
            missing = [t for t in inner.values() if t.key not in self._marks]
            if missing:
                waiting += missing
                continue
            self._marks[target.key] = fingerprint(provider, model, self._filled(theirs, inner))
            waiting.pop()
        return self._filled(request, targets)

    def _targets(self, request: Mapping[str, Any], point: Mapping[str, Any], take: int) -> dict[str, Target]:
        """Stand-in's text to job."""
        found = {}
        for _, text in stand_ins(request):
            target = self.target(text, point, take)
            if target is None:
                raise LookupError(f"no job for {text}: load checks this")
            found[text] = target
        return found

    def _filled(self, request: Mapping[str, Any], targets: Mapping[str, Target]) -> dict[str, Any]:
        def value(item: Any) -> Any:
            if isinstance(item, str) and item.startswith(STAND_IN):
                target = targets[unquote(item.removeprefix(STAND_IN))]
                return Need(target.key, self._marks[target.key], target.url).reference
            if isinstance(item, dict):
                return {name: value(inner) for name, inner in item.items()}
            if isinstance(item, list):
                return [value(inner) for inner in item]
            return item

        return {name: value(item) for name, item in request.items()}


def _shown(text: str) -> str:
    return "${" + SHOTS + visible(text, 80) + "}"
