"""The jobs of a valid manifest, made anew at every walk: 100,000 of them need no memory of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.job import JobSpec
from ..core.keys import fingerprint, job_key
from .chains import Chains, Parent, Target, stand_ins
from .located import Map, Node
from .matrix import Matrix, read_matrix
from .requests import ModelRules
from .shots import Settings, Shot, merge, request_of
from .templates import OPEN, fill, fill_typed

NO_POINT: dict[str, Any] = {}


class Expansion:
    """The jobs of a manifest, in its order: a `JobSource`."""

    def __init__(self, settings: Settings, lists: list[Node], count: int = 0) -> None:
        """`count` is the number of jobs, as the checks found it."""
        self.settings = settings
        self.lists = lists
        self.count = count
        self.chains = Chains(self._nodes, self._parent)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[JobSpec]:
        for node in self._nodes():
            shot = merge(self.settings, node)
            if "matrix" not in node.value:
                yield from self._jobs(shot, NO_POINT)
                continue
            matrix = matrix_of(self.settings, shot)
            for point in matrix.points() if matrix else (NO_POINT,):
                yield from self._jobs(shot, point)

    def shots(self) -> Iterator[Shot]:
        """Every shot, defaults and profile applied."""
        return (merge(self.settings, node) for node in self._nodes())

    def _nodes(self) -> Iterator[Node]:
        for found in self.lists:
            for i, raw in enumerate(found.value):
                if isinstance(raw, Map):
                    yield Node(found.document, raw, f"{found.path}[{i}]")

    def _parent(self, node: Node) -> Parent | None:
        """What other shots can refer to in a shot; None where it has errors of its own."""
        shot = merge(self.settings, node)
        if "matrix" not in node.value:
            return Parent(shot.id, [NO_POINT], shot.takes)
        try:
            matrix = matrix_of(self.settings, shot)
        except (ValueError, TypeError, AttributeError, LookupError):
            return None
        return None if matrix is None else Parent(shot.id, list(matrix.points()), shot.takes)

    def made(self, target: Target) -> tuple[str, str, dict[str, Any]]:
        """Provider, model and request of a job that another one refers to."""
        node = self.chains.node(target.shot)
        if node is None:
            raise LookupError(f"no shot {target.shot}: load checks this")
        rules, request, _ = request_of(self.settings, merge(self.settings, node), target.point, target.take)
        if rules is None:
            raise LookupError(f"no model for shot {target.shot}: load checks this")
        return rules.model.provider, rules.model.name, dict(request)

    def _jobs(self, shot: Shot, point: Mapping[str, Any]) -> Iterator[JobSpec]:
        settings = self.settings
        for take in range(1, shot.takes + 1):
            if take == 1 or shot.takes_differ:
                found, request, tags = request_of(settings, shot, point, take)
                if found is None:
                    raise LookupError(f"no model for shot {shot.id}: load checks this")
                rules = found
                model, provider = rules.model.name, rules.model.provider
                price = rules.credits(request)
                seconds = rules.seconds(request)
                asked = request
                if not shot.simple and next(stand_ins(request), None) is not None:
                    asked = self.chains.linked(request, point, take, self.made)
                mark = fingerprint(provider, model, asked)
            key = job_key(shot.id, point, take)
            yield JobSpec(
                key,
                mark,
                shot.id,
                take,
                dict(point),
                tags,
                provider,
                model,
                dict(asked),
                price,
                output_of(settings, shot, point, take, key, rules, request),
                settings.name is not None,
                seconds,
            )


def output_of(
    settings: Settings,
    shot: Shot,
    point: Mapping[str, Any],
    take: int,
    key: str,
    rules: ModelRules,
    request: Mapping[str, Any],
) -> str:
    """The output path of one job.

    Raises:
        TemplateError: `output.name` uses a name that this job has no value for.
    """
    if settings.name is None:
        return key
    own = {"shot": shot.id, "take": take, "model": rules.model.name}
    common = rules.model.common(request) if settings.name.common else {}
    layers = (point, own, request, rules.model.defaults, common, settings.variables, {"job": key})
    return settings.name.render(*layers)


def matrix_of(settings: Settings, shot: Shot, report: Any = None, used: set[str] | None = None) -> Matrix | None:
    """The shot's matrix; None without one, or where something was reported."""
    if "matrix" not in shot.node.value:
        return None
    model = shot.fields.get("model")
    rules = settings.rules.get(model) if isinstance(model, str) else None

    def value_of(axis: str, raw: Any) -> Any:
        value = raw
        if isinstance(raw, str) and OPEN in raw:
            as_text = rules is None or axis not in rules.accepts or axis in rules.strings
            value = (fill if as_text else fill_typed)(raw, settings.variables, used)
        return rules.convert(axis, value) if rules else value

    return read_matrix(shot.node, value_of, report)
