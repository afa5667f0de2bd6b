"""The two plots of docs/performance.md, and the table behind the first: all on virtual time, so the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .harness import ROOT, Context, Result, measure
from .nights import simulated
from .svg import Axis, Line, plot

IMAGES = ROOT / "docs" / "img"
MEDIAN = 60.0
TARGET = 0.97


def run(context: Context) -> Result:
    result = Result("plots", "polls against delay, and makespan against the bound")
    folder = context.room("plots") if context.quick else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    _polling(context, result, folder)
    _makespan(context, result, folder)
    result.notes.append(
        "Tasks are lognormal, median 60 s, sigma 0.5, 200 in flight. On paper: the product's schedule, its learning "
        "included, without engine and network. Stragglers take ten times as long. All at once: the first to end are "
        "the quickest, and the fit believes that all are; it asks too often until the slow ones end."
    )
    return result


def _polling(context: Context, result: Result, folder: Path) -> None:
    asked = json.dumps({"tasks": context.pick(2_000, 300)})
    command = [context.python, str(ROOT / "benchmarks" / "schedules.py"), asked]
    out = measure(command, folder, context.env(), keep=True).output
    found: dict[str, dict[str, dict[str, float]]] = json.loads(out)
    result.data["schedules"] = found
    result.table = [("truth", "schedule", "polls a task", "mean delay s", "p95 s")]
    lines = []
    for truth, by in found.items():
        for name, one in by.items():
            cells = (truth, name, f"{one['polls']:.1f}", f"{one['delay']:.2f}", f"{one['p95']:.1f}")
            result.table.append(cells)
        hazard = {name.rpartition("= ")[2]: one for name, one in by.items() if name.startswith("by hazard")}
        labels = [f"c={price}" for price in hazard] if truth == "as learned" else []
        points = [(one["polls"], one["delay"]) for one in hazard.values()]
        lines.append(Line(f"by hazard, {truth}", points, labels=labels))
    plain = {name: one for name, one in found["as learned"].items() if not name.startswith("by hazard")}
    points = [(one["polls"], one["delay"]) for one in plain.values()]
    lines.append(Line("without learning", points, joined=False, labels=list(plain)))
    x = Axis("polls a task", (2, 5, 10, 20, 50, 100), log=True)
    y = Axis("mean delay, s", (0.5, 1, 2, 5, 10, 20, 50), log=True)
    (folder / "polls-and-delay.svg").write_text(plot("What a poll buys: delay against polls", x, y, lines))


def _makespan(context: Context, result: Result, folder: Path) -> None:
    slots: tuple[int, ...] = context.pick((5, 10, 20, 40, 80), (5, 10))
    rounds = context.pick(60, 10)
    nights: list[dict[str, Any]] = [{"jobs": rounds * s, "slots": s, "median": MEDIAN} for s in slots]
    found = simulated(context, nights)
    result.data["makespan"] = {str(s): one for s, one in zip(slots, found, strict=True)}
    x = Axis("slots in flight", slots, log=True)
    y = Axis("share of what is possible: n x mean / slots / makespan", (0.8, 0.85, 0.9, 0.95, 1.0))

    def line(name: str, of: str) -> Line:
        shares = [one["bound"] / one[of] for one in found]
        return Line(name, [(s, min(1.0, max(0.8, share))) for s, share in zip(slots, shares, strict=True)])

    lines = [
        line("who sees every end at once", "oracle"),
        line("batchrunner", "makespan"),
        Line("target", [(slots[0], TARGET), (slots[-1], TARGET)], dashed=True),
    ]
    title = f"Makespan against the bound, {rounds} tasks a slot"
    (folder / "makespan.svg").write_text(plot(title, x, y, lines))
