"""Charts: bars over one axis, for the template to draw. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.figures import counted, local_time, number, span
from .nights import Night, Spread


@dataclass(frozen=True, slots=True)
class Tick:
    """A label below a chart, `at` per cent from its left edge."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A row of bars. `bars` are (index, height, what a pointer reads); `tone` is their colour."""

    name: str
    total: str
    tone: str
    peak: int
    bars: list[tuple[int, int, str]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels over one axis of `slices` slices; `words` says in words what it shows."""

    title: str
    words: str
    slices: int
    panels: list[Panel]
    ticks: list[Tick]


TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
"""Seconds between two labels of an axis."""

MOST_TICKS = 6


def timeline(night: Night) -> Chart:
    """What happened when."""
    seconds = night.width * len(night.slices)
    step = next((t for t in TICKS if seconds / t <= MOST_TICKS), TICKS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%d %b"
    first = -(-night.began // step) * step
    ticks = [
        Tick(100 * (at - night.began) / seconds, local_time(at, form))
        for at in range(int(first), int(night.began + seconds), step)
    ]
    panels = [
        _panel(night, "In flight", "in_flight", f"at most {number(night.most_in_flight)}", "calm"),
        _panel(night, "Submitted", "submitted", number(night.total("submitted")), "accent"),
        _panel(night, "Completed", "completed", number(night.total("completed")), "ok"),
    ]
    for name, what, tone in (("Failed", "failed", "bad"), ("Too many requests (429)", "throttled", "warn")):
        if night.total(what):
            panels.append(_panel(night, name, what, _total(night, what), tone))
    title = f"{local_time(night.start, '%A %d %B, %H:%M')} to {local_time(night.end, '%H:%M')}"
    words = f"{title}. " + "; ".join(f"{panel.name.lower()}: {panel.total}" for panel in panels) + "."
    return Chart(title, words, len(night.slices), panels, ticks)


def _total(night: Night, what: str) -> str:
    total, polls = number(night.total(what)), night.total("polls_throttled")
    return f"{total}, {number(polls)} of them to polls" if what == "throttled" and polls else total


def _panel(night: Night, name: str, what: str, total: str, tone: str) -> Panel:
    bars = [
        (i, height, f"{local_time(night.began + i * night.width, '%H:%M:%S')}: {number(height)}")
        for i, piece in enumerate(night.slices)
        if (height := getattr(piece, what))
    ]
    return Panel(name, total, tone, max((bar[1] for bar in bars), default=1), bars)


def latency(found: Spread) -> Chart:
    """Tasks by how long they took."""
    whole = len(found.bars) * found.width
    last = len(found.bars) - 1
    bars = [(i, n, f"{_bar(found, i, last)}: {number(n)}") for i, n in enumerate(found.bars) if n]
    step = next((t for t in (0.5, *TICKS) if whole / t <= MOST_TICKS), TICKS[-1])
    ticks = [
        Tick(100 * i * step / whole, exact_span(i * step)) for i in range(int(whole / step) + 1) if i * step < whole
    ]
    panel = Panel("Tasks by how long they took", f"median {exact_span(found.median)}", "accent", max(found.bars), bars)
    words = (
        f"{counted(found.count, 'task')}: half took at most {exact_span(found.median)}, nine of ten at most "
        f"{exact_span(found.p90)}, the longest {exact_span(found.longest)}."
    )
    return Chart("How long a clip took", words, len(found.bars), [panel], ticks)


def _bar(found: Spread, index: int, last: int) -> str:
    low = exact_span(index * found.width)
    beyond = index == last and found.longest > (last + 1) * found.width
    return f"{low} and more" if beyond else f"{low} to {exact_span((index + 1) * found.width)}"


def exact_span(seconds: float) -> str:
    """`4.5 s`, `90 s`, `2 min`, `2 min 30 s`, `3 h 05 min`: finer than `span`, where bars differ by seconds."""
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100 or whole >= 3600:
        return f"{whole} s" if whole < 100 else span(seconds)
    return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
