"""Every check that needs the expanded shots: requests, ids, prices, output names. One walk, then forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..core.chain import Steps
from ..core.keys import job_key
from ..core.text import visible
from .chains import stand_in
from .clashes import report_clashes
from .expand import NO_POINT, Expansion, matrix_of, output_of
from .findings import Report, did_you_mean, listed, quoted
from .layers import field_problems, place_of, unknown_model
from .links import Links
from .located import Map, Node, Place
from .matrix import Matrix
from .model import Sums
from .outputs import MAX_COMPONENT, Names, path_problem
from .requests import SHOT_KEYS, ModelRules
from .scalars import typed
from .schema_errors import Explainer, Problem, gate
from .shots import Settings, Shot, level_of, merge, request_of, strings
from .spelling import Level, Notes
from .templates import NoValue, names_in

MAX_JOBS = 1_000_000
MAX_REPEATED = 10_000
MAX_REPEATED_IN_A_SHOT = 100
"""Errors of jobs that were said of another job already, after which the checks stop: finding them again is slow."""


class Checker:
    """Walks all shots once and reports what is wrong with them.

    Attributes:
        sums: what the jobs come to, after `run`.
        used: names of variables that occur in shots.
    """

    def __init__(
        self, expansion: Expansion, schema: Mapping[str, Any], report: Report, name_place: Place, budget: bool
    ) -> None:
        self.expansion = expansion
        self.settings: Settings = expansion.settings
        self.report = report
        self.name_place = name_place
        self.budget = budget
        part = {"$ref": "#/$defs/shot", "$defs": schema["$defs"]}
        self.shot_is_valid = gate(part).is_valid
        self.explainer = Explainer(part)
        self.used: set[str] = set()
        self.sums = Sums()
        self.names = Names()
        self._repeated = 0
        self._notes = Notes(used=self.used)
        self._shared: set[tuple[str, int, str]] = set()
        self._ids: dict[str, int] = {}
        self._planned = 0
        self.links = Links(expansion, report)

    def run(self) -> None:
        """Check everything."""
        number = 0
        for found in self.expansion.lists:
            document, path = found.document, found.path
            for i, raw in enumerate(found.value):
                if self._done:
                    return
                if isinstance(raw, Map):
                    self._shot(Node(document, raw, f"{path}[{i}]"), number)
                else:
                    for problem in self.explainer.problems(raw, "a shot"):
                        self.report.error(found.at(i), problem.message)
                number += 1
        self.links.finish()
        self.names.finish()
        if self.names.suspects and not self.report.errors:
            report_clashes(self.expansion, self.names.suspects, self.name_place, self.report)

    @property
    def _done(self) -> bool:
        """Whether there is no use in looking further."""
        return self.report.full or self._planned > MAX_JOBS or self._repeated >= MAX_REPEATED

    def _error(self, place: Place, message: str) -> None:
        """An error of one job, which many others may share."""
        before = self.report.errors
        self.report.error(place, message)
        self._repeated += self.report.errors == before

    def _error_at(
        self,
        place: Place,
        message: str,
        shot: Shot,
        point: Mapping[str, Any],
        name: str,
        rules: ModelRules | None,
    ) -> None:
        """An error of a field. Where it stands in the defaults or a profile, which is said once for each model, the
        first shot and its model are named: it may be right for others."""
        if rules is None or name not in shot.fields or level_of(self.settings, shot, point, name) is Level.SHOT:
            self._error(place, message)
            return
        key = (rules.model.name, place.mark, message)
        if key in self._shared:
            self._repeated += 1
            return
        self._shared.add(key)
        mend = "" if "; take it out" in message else f"; give such shots a {name} of their own"
        self._error(place, f"shot {shot.id} ({rules.model.name}): {message}{mend}")

    # --- one shot ----------------------------------------------------------------------------------------

    def _shot(self, node: Node, number: int) -> None:
        bad = set() if self.shot_is_valid(node.value) else self._explain_shot(node)
        if "id" not in bad:
            self._id(node, number)
        shot = merge(self.settings, node)
        for name in bad - {"id"}:
            shot.fields.pop(name, None)
        if "id" in bad:
            shot.id = visible(shot.id, 60)  # from here on it only stands in messages
        if bad & {"matrix", "exclude"}:
            self._fields_only(shot)
            return
        if "exclude" in node.value and "matrix" not in node.value:
            self.report.error(node.key("exclude"), "exclude needs a matrix beside it")
        if not self._count(shot):
            return
        if "matrix" in node.value:
            self._matrix(shot, whole=not bad)
        else:
            self._point(shot, None, NO_POINT, whole=not bad)

    def _matrix(self, shot: Shot, whole: bool) -> None:
        """Every point of a shot's matrix."""
        matrix = matrix_of(self.settings, shot, self.report, self.used)
        if matrix is None:
            self._fields_only(shot)
            return
        self._axes(shot, matrix)
        points = 0
        enough = self._repeated + MAX_REPEATED_IN_A_SHOT
        for point in matrix.points():
            points += 1
            self._point(shot, matrix, point, whole)
            if self._done or self._repeated >= enough:
                return
        if not points:
            self.report.error(shot.node.key("exclude"), "exclude leaves nothing of the matrix")

    def _explain_shot(self, node: Node) -> set[str]:
        """Report what the shot's own schema refuses; the keys concerned."""
        bad = set()
        for problem in self.explainer.problems(node.value, "the shot"):
            self.report.error(place_of(node, problem), problem.message)
            bad.add(str(problem.steps[0]) if problem.steps else "id")
        return bad

    def _id(self, node: Node, number: int) -> None:
        name = node.value["id"]
        first = self._ids.setdefault(name, number)
        if first != number:
            there = self._numbered(first).at("id")
            line, column = there.position()
            where = f"{there.document.name}:{line}:{column}"
            self.report.error(node.at("id"), f"duplicate id {quoted(name)}; it is used at {where} already")

    def _numbered(self, number: int) -> Node:
        for found in self.expansion.lists:
            if number < len(found.value):
                return found.child(number)
            number -= len(found.value)
        raise IndexError(number)

    def _count(self, shot: Shot) -> bool:
        size = shot.takes
        for values in shot.node.value.get("matrix", {}).values():
            size *= len(values)
        self._planned += size
        if self._planned > MAX_JOBS:
            self.report.error(
                shot.node.place, f"too many jobs: with this shot {self._planned}, at most {MAX_JOBS} are allowed"
            )
        return self._planned <= MAX_JOBS

    def _axes(self, shot: Shot, matrix: Matrix) -> None:
        settings, axes = self.settings, shot.node.child("matrix")
        model = shot.fields.get("model")
        own = settings.rules.get(model) if isinstance(model, str) and "model" not in matrix.axes else None
        known = {name for rules in ([own] if own else settings.rules.values()) for name in rules.takes}
        used = set(settings.name.names) if settings.name else set()
        for text in strings([*shot.fields.values(), *shot.tags]):
            used |= names_in(text)
            if stand_in(text) is not None:  # at the same point of another shot's matrix
                used |= matrix.axes.keys()
        for name in matrix.axes:
            if name in settings.over.node.value:
                self.report.error(
                    axes.key(name),
                    f"profile {settings.profile} sets {name}, which is also a matrix axis of shot {shot.id}; "
                    "take it out of one of them",
                )
            if name in shot.node.value and name not in SHOT_KEYS:
                self.report.error(
                    shot.node.key(name), f"{name} is also an axis of this shot's matrix; take it out of one of them"
                )
            if name not in known and name not in used:
                self.report.warning(
                    axes.key(name),
                    f"the axis {name} changes nothing: it is no request field and ${{{name}}} is used nowhere"
                    + did_you_mean(name, known),
                )

    def _fields_only(self, shot: Shot) -> None:
        """Check single fields of a shot whose matrix or model is unusable."""
        self.links.of_broken(shot, lambda name: self._origin(shot, None, NO_POINT, name))
        rules = self.settings.rules
        model = shot.fields.get("model")
        model = model if isinstance(model, str) else None
        for name, value in shot.fields.items() if shot.node.document.typed else ():
            if name != "model" and not self.report.full:
                for problem in field_problems(rules, model, name, value):
                    self._error(self._origin(shot, None, NO_POINT, name, problem), problem.message)

    # --- one point ---------------------------------------------------------------------------------------

    def _point(self, shot: Shot, matrix: Matrix | None, point: Mapping[str, Any], whole: bool) -> None:
        settings = self.settings
        for take in range(1, shot.takes + 1):
            if take == 1 or shot.takes_differ:
                rules, request, price = self._request(shot, matrix, point, take)
            if rules is None:
                return
            self.sums.add(rules.model.name, price)
            if not whole:
                continue
            try:
                path = output_of(settings, shot, point, take, job_key(shot.id, point, take), rules, request)
            except NoValue as error:
                said = str(error)
                if error.name in rules.accepts:
                    said = f"${{{error.name}}} has no value in shot {shot.id}: its request does not set {error.name}"
                self._error(self.name_place, f"output.name: {said}")
                return
            if settings.name is not None or "." in path or len(path) > MAX_COMPONENT:
                problem = path_problem(path)
                if problem:
                    self._bad_path(shot, problem)
                    return
            self.names.add(path)

    def _bad_path(self, shot: Shot, problem: str) -> None:
        if self.settings.name is not None:
            self._error(self.name_place, f"output.name, for shot {shot.id}: {problem}")
        else:
            self._error(shot.node.at("id"), f"the file named after the job: {problem}; give it an output.name")

    def _request(
        self, shot: Shot, matrix: Matrix | None, point: Mapping[str, Any], take: int
    ) -> tuple[ModelRules | None, dict[str, Any], int | None]:
        if self._notes.anything:
            self._notes = Notes(used=self.used)
        notes = self._notes
        rules, request, _ = request_of(self.settings, shot, point, take, notes)
        for name, message in notes.problems:
            self._error(self._origin(shot, matrix, point, name), message)
        for name, message in notes.refused:
            self._error_at(self._origin(shot, matrix, point, name), message, shot, point, name, rules)
        for name, message in notes.left_out:
            self.report.warning(self._origin(shot, matrix, point, name), message)
        if rules is None:
            if not any(name == "model" for name, _ in notes.problems):
                self._no_model(shot, matrix, point, request.get("model"))
            self._fields_only(shot)
            return None, request, None
        if notes.problems or notes.refused or not rules.clean(request):
            self._explain(shot, matrix, point, rules, request, notes)
        price = rules.credits(request)
        if price is None and rules.valid(request):
            self._no_price(shot, matrix, point, rules, request)
        if not shot.simple:
            where = partial(self._where, shot, matrix, point)
            self.links.check(shot, point, take, rules, request, where, self._error)
        return rules, request, price

    def _where(self, shot: Shot, matrix: Matrix | None, point: Mapping[str, Any], steps: Steps) -> Place:
        """Where a value within a request was written."""
        name, *inner = steps
        spelled = self._notes.spelled.get(str(name))
        problem = None if spelled else Problem(tuple(inner), "")
        return self._origin(shot, matrix, point, spelled or str(name), problem)

    def _explain(
        self,
        shot: Shot,
        matrix: Matrix | None,
        point: Mapping[str, Any],
        rules: ModelRules,
        request: dict[str, Any],
        notes: Notes,
    ) -> None:
        """Report what is wrong with a request. Fields that were reported and left out count as given."""
        layers = (self.settings.under, self.settings.over)
        reported = {n: layer.node.value[n] for layer in layers for n in layer.bad}
        failed = {n for n, _ in [*notes.problems, *notes.refused]}
        reported |= {n: v for n, v in shot.fields.items() if n in failed or n not in rules.renamed}
        left_out = {n: v for n, v in rules.own_words(reported).items() if n not in request}
        called = f"shot {shot.id}" if shot.id else "the shot"
        found = [p for p in rules.problems({**left_out, **request}, called, notes.spelled) if p.field not in left_out]
        for entry in found:
            if entry.field is not None:
                place = self._origin(shot, matrix, point, entry.field, entry.problem)
                self._error_at(place, entry.problem.message, shot, point, entry.field, rules)
            else:
                self._error(shot.node.place, entry.problem.message)
        if not found and not left_out:
            for name, message in rules.warnings(request):
                place = self._origin(shot, matrix, point, notes.spelled.get(name, name))
                self.report.warning(place, message)

    def _no_model(self, shot: Shot, matrix: Matrix | None, point: Mapping[str, Any], name: Any) -> None:
        known = self.settings.rules
        if isinstance(name, str) and name:
            self._error(self._origin(shot, matrix, point, "model"), unknown_model(name, known))
        elif "model" not in shot.node.value and "model" not in self.settings.under.bad | self.settings.over.bad:
            self._error(
                shot.node.place,
                f"shot {shot.id} has no model; set model in defaults or in the shot; models: {listed(known)}",
            )

    def _no_price(
        self,
        shot: Shot,
        matrix: Matrix | None,
        point: Mapping[str, Any],
        rules: ModelRules,
        request: Mapping[str, Any],
    ) -> None:
        place = self._origin(shot, matrix, point, "model")
        name = rules.model.name
        what = f"no price is known for {name} as it is used here"
        how = f"give it in the manifest, such as prices: {{{name}: {{per: second, usd: 0.1}}}}"
        length = rules.missing_length(request)
        if length is not None:
            what = f"{name} is charged by the second and its default length is not known"
            how = f"give {length}"
        if self.budget:
            self._error(place, f"{what}, and a budget is set; {how}")
        else:
            self.report.warning(place, f"{what}, so no cost can be told; {how}")

    def _origin(
        self, shot: Shot, matrix: Matrix | None, point: Mapping[str, Any], name: str, problem: Problem | None = None
    ) -> Place:
        """Where the value of a field was written: profile, axis, shot or defaults; or the shot's start."""
        settings = self.settings
        if name in settings.over.node.value:
            node = settings.over.node
        elif name in point and matrix is not None:
            axes = shot.node.child("matrix")
            if problem is not None and problem.at_key:
                return axes.key(name)
            values = [typed(v) for v in matrix.axes[name]]
            return axes.child(name).at(values.index(typed(point[name])))
        elif name in shot.node.value:
            node = shot.node
        elif name in settings.under.node.value:
            node = settings.under.node
        else:
            return shot.node.place
        if problem is None:
            return node.at(name)
        return place_of(node, Problem((name, *problem.steps), problem.message, problem.at_key))
