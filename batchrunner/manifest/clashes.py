"""Which jobs share an output path. Walked only where `outputs.Names` has a suspicion."""

from __future__ import annotations

from ..core.keys import job_key
from .expand import NO_POINT, Expansion, matrix_of, output_of
from .findings import Report, quoted
from .located import Place
from .outputs import normal, principals
from .shots import Shot, request_of

MAX_CLASHES = 20
"""Pairs of jobs that are named; the cause is nearly always one and the same."""


def report_clashes(expansion: Expansion, suspects: set[str], name_place: Place, report: Report) -> None:
    """Name the jobs whose outputs are one file, or one the other's companion.

    Args:
        expansion: a manifest without errors so far.
        suspects: normal paths that may be taken twice.
        name_place: where `output.name` stands.
        report: where they go.
    """
    found = _Found(expansion, suspects)
    for shot, message in [*found.same(), *found.near()][:MAX_CLASHES]:
        template = expansion.settings.name
        if template is None:
            report.error(shot.node.at("id"), f"{message}, where upper and lower case are the same; give one another id")
            continue
        wanted = ["shot", "take", *shot.node.value.get("matrix", {})]
        missing = [f"${{{name}}}" for name in wanted if name not in template.names]
        hint = f"; add {' and '.join(missing)}, or ${{job}}, to output.name" if missing else ""
        report.error(name_place, message + hint)


class _Found:
    def __init__(self, expansion: Expansion, suspects: set[str]) -> None:
        self.first: dict[str, tuple[str, Shot]] = {}
        self.pairs: list[tuple[Shot, str]] = []
        settings = expansion.settings
        for shot in expansion.shots():
            matrix = matrix_of(settings, shot)
            for point in matrix.points() if matrix else (NO_POINT,):
                for take in range(1, shot.takes + 1):
                    rules, request, _ = request_of(settings, shot, point, take)
                    if rules is None or len(self.pairs) >= MAX_CLASHES:
                        return
                    key = job_key(shot.id, point, take)
                    path = output_of(settings, shot, point, take, key, rules, request)
                    if normal(path) in suspects:
                        self._add(normal(path), path, key, shot)

    def _add(self, name: str, path: str, key: str, shot: Shot) -> None:
        if name in self.first:
            self.pairs.append((shot, f"the jobs {self.first[name][0]} and {key} have one output, {quoted(path, 200)}"))
        else:
            self.first[name] = (key, shot)

    def same(self) -> list[tuple[Shot, str]]:
        return self.pairs

    def near(self) -> list[tuple[Shot, str]]:
        found = []
        for name, (key, shot) in self.first.items():
            for other in principals(name):
                if other in self.first:
                    what = f"the companion file of job {self.first[other][0]}'s"
                    found.append((shot, f"the output of job {key}, {quoted(name, 200)}, is {what}"))
        return found
