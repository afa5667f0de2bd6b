"""A shot's matrix: axes, the points of their product, and which of them are excluded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.text import visible
from .findings import Report, did_you_mean, listed
from .located import Node
from .scalars import typed
from .schema_errors import show

MAX_EXCLUDED_SETS = 64
"""Different sets of axes that the entries of `exclude` may name: every point is looked up in each."""
NOT_AN_AXIS = frozenset({"id", "matrix", "exclude", "takes", "tags", "shot", "take", "batch"})
"""Names that mean something else in a shot or in `${...}`."""


@dataclass(slots=True)
class Matrix:
    """The axes of a shot.

    Attributes:
        axes: name to values, in the manifest's order.
        excluded: for each set of axes that an exclude entry names, the combinations left out.
        excluded_points: how many points are excluded.
    """

    axes: dict[str, list[Any]] = field(default_factory=dict)
    excluded: dict[tuple[str, ...], set[Any]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Points of the full product, before `exclude`."""
        return math.prod(map(len, self.axes.values()))

    def points(self) -> Iterator[dict[str, Any]]:
        """Axis to value, the last axis fastest."""
        names = list(self.axes)
        for values in itertools.product(*self.axes.values()):
            point = dict(zip(names, values, strict=True))
            if not self.excluded or not self._is_excluded(point):
                yield point

    def _is_excluded(self, point: Mapping[str, Any]) -> bool:
        return any(
            tuple(typed(point[name]) for name in names) in combinations for names, combinations in self.excluded.items()
        )


def read_matrix(node: Node, value_of: Callable[[str, Any], Any], report: Report | None) -> Matrix | None:
    """The matrix of a shot that passed the shot's schema.

    Args:
        node: the shot.
        value_of: an axis and a raw value to the value meant: variables filled in, typed for the field. Raises
            ValueError, whose message is reported at the value.
        report: where problems go; None where the shot is known to have none.

    Returns:
        the matrix; None where something was reported.
    """
    before = report.errors if report else 0
    result = Matrix()
    axes = node.child("matrix")
    for name, raw in axes.value.items():
        if name in NOT_AN_AXIS and report:
            report.error(axes.key(name), f"an axis can't be named {name}: the name means something else in a shot")
        result.axes[name] = _values(axes, name, raw, value_of, report)
    if "exclude" in node.value:
        _read_exclude(node.child("exclude"), result, value_of, report)
    return None if report and report.errors != before else result


def _values(
    axes: Node, name: str, raw: list[Any], value_of: Callable[[str, Any], Any], report: Report | None
) -> list[Any]:
    values: list[Any] = []
    seen: set[Any] = set()
    for i, item in enumerate(raw):
        try:
            value = value_of(name, item)
        except ValueError as error:
            if report:
                report.error(axes.child(name).at(i), str(error))
            continue
        if report:
            if typed(value) in seen:
                report.error(axes.child(name).at(i), f"the axis {name} has the value {show(value)} twice")
            seen.add(typed(value))
        values.append(value)
    return values


def _read_exclude(node: Node, matrix: Matrix, value_of: Callable[[str, Any], Any], report: Report | None) -> None:
    known = {name: {typed(v) for v in values} for name, values in matrix.axes.items()}
    for i, entry in enumerate(node.value):
        here = node.child(i)
        combination: dict[str, Any] = {}
        for name, raw in entry.items():
            if name not in known:
                if report:
                    hint = did_you_mean(name, known)
                    said = f"the matrix has no axis {visible(name, 60)}{hint}; its axes: {listed(known)}"
                    report.error(here.key(name), said)
                continue
            try:
                value = value_of(name, raw)
            except ValueError as error:
                if report:
                    report.error(here.at(name), str(error))
                continue
            if typed(value) not in known[name] and report:
                report.error(here.at(name), _no_such_value(name, value, matrix.axes[name]))
            combination[name] = typed(value)
        names = tuple(sorted(combination))
        matrix.excluded.setdefault(names, set()).add(tuple(combination[name] for name in names))
    if report and len(matrix.excluded) > MAX_EXCLUDED_SETS:
        report.error(
            node.place,
            f"exclude names {len(matrix.excluded)} different sets of axes; at most {MAX_EXCLUDED_SETS} are allowed",
        )


def _no_such_value(name: str, value: Any, values: list[Any]) -> str:
    texts = [v if isinstance(v, str) else show(v) for v in values]
    hint = did_you_mean(value, [v for v in values if isinstance(v, str)]) if isinstance(value, str) else ""
    if not hint and value in texts:
        hint = " (write it without quotes)"
    return f"the axis {name} has no value {show(value)}{hint}; its values: {listed(texts)}"
