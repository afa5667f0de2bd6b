"""Which shot needs which: whether each reference names a job, can be right where it stands, and closes no circle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ..core.chain import MARK, Steps, needs
from ..core.text import visible
from .chains import BadReference, Target, stand_in, stand_ins
from .expand import Expansion
from .findings import Report
from .located import Place
from .requests import ModelRules
from .shots import Shot, strings

MAX_LINKS = 100
"""Links of a circle that a message has the positions of."""

Edges = dict[str, dict[str, Place]]
"""Shot to the shots that it needs, and where each is written."""


class Links:
    """The references of a manifest, met in one walk over its jobs."""

    def __init__(self, expansion: Expansion, report: Report) -> None:
        self._expansion = expansion
        self._report = report
        self._edges: Edges = {}

    @property
    def any(self) -> bool:
        """Whether a shot needs another one's output."""
        return bool(self._edges)

    def check(
        self,
        shot: Shot,
        point: Mapping[str, Any],
        take: int,
        rules: ModelRules,
        request: dict[str, Any],
        where: Callable[[Steps], Place],
        error: Callable[[Place, str], None],
    ) -> None:
        """Check what a job needs of other shots, and remember it.

        Args:
            shot, point, take: which job.
            rules, request: its model's, and what it asks for.
            where: a place in the request to where that was written.
            error: reports.
        """
        if needs(request):
            error(shot.node.place, f"shot {shot.id}: {MARK} is no field of a model")
        for steps, text in stand_ins(request):
            first = self._met(shot, text, partial(where, steps))
            try:
                target = self._expansion.chains.target(text, point, take)
            except BadReference as wrong:
                error(where(steps), str(wrong))
                continue
            if target is not None and first is not None:
                self._fitting(target, rules, steps, first, error)

    def of_broken(self, shot: Shot, where: Callable[[str], Place]) -> None:
        """Remember what a shot needs that has no requests, for the circles.

        Args:
            shot: its model, or its matrix, can't be used.
            where: a field to where it was written.
        """
        for name, value in shot.fields.items():
            for _, text in stand_ins({i: stand_in(text) for i, text in enumerate(strings(value))}):
                self._met(shot, text, partial(where, name))

    def _met(self, shot: Shot, text: str, where: Callable[[], Place]) -> Place | None:
        """Remember a reference; where it stands, the first time that this shot names that one."""
        parent = self._expansion.chains.shot_of(text)
        if parent is None or parent in self._edges.setdefault(shot.id, {}):
            return None
        place = self._edges[shot.id][parent] = where()
        return place

    def _fitting(
        self, target: Target, rules: ModelRules, steps: Steps, place: Place, error: Callable[[Place, str], None]
    ) -> None:
        """Say what can't be right, of what a shot makes, in the place where another one wants it."""
        try:
            _, model, request = self._expansion.made(target)
        except (LookupError, ValueError):
            return  # which is said where the shot stands
        theirs = self._expansion.settings.rules[model].model
        asks = theirs.schema["properties"].get("return_last_frame")
        first = rules.names.get("first_frame")
        last = target.url == "last_frame_url"
        if last and theirs.output != "video":
            error(place, f"{target.shot} makes no clip that would have a last frame; use its output_url")
        elif last and asks is None:
            self._report.warning(place, f"whether {model} gives the last frame of its clips is not known")
        elif last and request.get("return_last_frame") is not True:
            error(place, f"{target.shot} does not ask for its last frame; give it return_last_frame: true")
        elif not last and theirs.output != "image" and first is not None and first.path == steps:
            self._report.warning(place, f"{target.shot} makes {theirs.output}, and a first frame is a picture")

    def finish(self) -> None:
        """Report the circles, once all is known."""
        for ring in circles(self._edges):
            self._report.error(ring[0][2], told(ring))


def circles(edges: Edges) -> Iterator[list[tuple[str, str, Place]]]:
    """Shots that need each other in a circle, as its links: (shot, what it needs, where that stands). A circle for each
    link that closes one, in the order in which they are met."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        on: set[str] = set()
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            stack.append((start, iter(edges[start])))
            path.append(start)
            on.add(start)
        while stack:
            shot, rest = stack[-1]
            parent = next(rest, None)
            if parent is None:
                stack.pop()
                path.pop()
                on.discard(shot)
                done.add(shot)
            elif parent in on:
                ring = path[path.index(parent) :]
                yield [(a, b, edges[a][b]) for a, b in zip(ring, [*ring[1:], parent], strict=True)]
            elif parent not in done and parent in edges:
                stack.append((parent, iter(edges[parent])))
                path.append(parent)
                on.add(parent)


def told(ring: list[tuple[str, str, Place]]) -> str:
    """A circle in words."""
    links = []
    for shot, parent, place in ring[:MAX_LINKS]:
        line, column = place.position()
        links.append(f"{visible(shot, 60)} needs {visible(parent, 60)} ({place.document.name}:{line}:{column})")
    more = f", and {len(ring) - MAX_LINKS} more links" if len(ring) > MAX_LINKS else ""
    return "shots need each other in a circle: " + ", ".join(links) + more
