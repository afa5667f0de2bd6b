"""A line plot as SVG, by hand: two axes, lines, points, a legend. Nothing here needs a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8a5fb0", "#c77d11", "#555555", "#0f9b8e")
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 40, 56


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together.

    Attributes:
        name: in the legend.
        points: (x, y).
        joined: a line, or points only.
        dashed: a line that is a bound, and no measurement.
        labels: one beside each point, where there are any.
    """

    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True
    dashed: bool = False
    labels: Sequence[str] = ()


@dataclass(slots=True)
class Axis:
    """One direction: what is on it, from where to where, and where its ticks are."""

    title: str
    ticks: Sequence[float]
    log: bool = False
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        self.low, self.high = min(self.ticks), max(self.ticks)

    def share(self, value: float) -> float:
        """Where a value is, 0 to 1."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def plot(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """The whole document. It brings its own white ground, so that it can be read on a dark page too."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"',
        f'  font-family="sans-serif" font-size="12" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=14, weight="bold"),
    ]
    parts += _grid(x, y)
    for number, line in enumerate(lines):
        parts += _line(x, y, line, COLOURS[number % len(COLOURS)], TOP + 14 + 20 * number)
    return "\n".join([*parts, "</svg>", ""])


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#dddddd"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 18, f"{tick:g}", anchor="middle"))
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{tick:g}", anchor="end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x.title, anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(20 {middle:.0f}) rotate(-90)" text-anchor="middle" fill="#222222">'
        f"{escape(y.title)}</text>"
    )
    return parts


def _line(x: Axis, y: Axis, line: Line, colour: str, legend: float) -> list[str]:
    places = [(_x(x, a), _y(y, b)) for a, b in line.points]
    parts = []
    if line.joined:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
    if not line.dashed:
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in places]
    for (a, b), label in zip(places, line.labels, strict=False):
        parts.append(_text(a + 6, b - 6, label, size=10))
    key = WIDTH - RIGHT + 16
    parts.append(f'<path d="M{key} {legend - 4}h18" stroke="{colour}" stroke-width="3"/>')
    parts.append(_text(key + 24, legend, line.name))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="#222222">{escape(text)}</text>'
    )
