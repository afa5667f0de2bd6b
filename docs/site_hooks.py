"""Hooks of MkDocs (mkdocs.org, Plugins, Events) with which nothing of the site is fetched from anywhere."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)\s]+|[^):\s]+\.(?:py|yaml|json)|examples/[^)\s]+)\)")
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What Material loads for the search from a file URL; docs/theme has it."""

DIALOG = 'data-md-component="search" role="dialog"'
LOADED = re.compile(r"<(?:script|img|iframe|video|link)\b[^>]*\s(?:src|href)=[\"']?(?:https?:)?//[^>]*>")

MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
ARROW = re.compile(r"^ *(\w+) --> (\w+): (.+)$", re.MULTILINE)

PLACES = {
    "pending": (90, 230),
    "submitting": (350, 230),
    "running": (610, 230),
    "downloading": (870, 230),
    "succeeded": (1090, 230),
    "unconfirmed": (440, 60),
    "cancelled": (90, 60),
    "failed": (610, 460),
}
"""Middle of each state's box, in the drawing's units."""

BENDS = {
    ("running", "pending"): 150,
    ("failed", "pending"): 70,
    ("submitting", "pending"): 45,
    ("unconfirmed", "failed"): -10,
}
"""How far an arrow leaves the straight line, to its left, where it would run over something."""

TIP = """\
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 L8 4 L0 8" /></marker></defs>"""

HALF_WIDTH, HALF_HEIGHT = 58, 20


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """What a page links outside docs/, such as code, is shown by its name; the state machine is drawn."""
    depth = len(PurePosixPath(page.file.src_uri).parent.parts)

    def shown(match: re.Match[str]) -> str:
        target = match[2].split("#")[0]
        outside = target.count("../") > depth or not target.endswith((".md", ".png", ".svg"))
        return match[1] if outside else match[0]

    return MERMAID.sub(lambda match: drawing(match[1]), LINK.sub(shown, markdown))


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """The search's helper comes from the site itself, and its dialogue has a name.

    Raises:
        ValueError: the page would still load something from elsewhere.
    """
    return _ours(output, page.url, "../" * page.url.count("/"))


def on_post_template(output: str, *, template_name: str, **_: Any) -> str:
    """The same of the page for what is not there, which a server shows at any depth. Raises as `on_post_page`."""
    return _ours(output, template_name, "/") if template_name.endswith(".html") else output


def _ours(output: str, name: str, root: str) -> str:
    here = output.replace(SHIM, f"{root}theme/iframe-worker.js")
    here = here.replace(DIALOG, f'{DIALOG} aria-label="Search"')
    foreign = LOADED.search(here)
    if foreign is not None:
        raise ValueError(f"{name} loads from elsewhere: {foreign[0]}")
    return here


def drawing(mermaid: str) -> str:
    """An SVG of the states and arrows of a Mermaid state diagram.

    Raises:
        KeyError: a state has no place yet.
    """
    arrows = {(before, after): events for before, after, events in ARROW.findall(mermaid)}
    parts = [
        '<svg class="states" viewBox="0 0 1160 500" role="img" aria-label="The states; the tables below say the same">',
        TIP,
    ]
    labels = []
    for (before, after), events in arrows.items():
        bend = BENDS.get((before, after), 28 if (after, before) in arrows else 0)
        start, end, middle = _curve(PLACES[before], PLACES[after], bend)
        top = (2 * middle[0] - (start[0] + end[0]) / 2, 2 * middle[1] - (start[1] + end[1]) / 2)
        line = " ".join(f"{value:.0f}" for value in (*start, *top, *end))
        x1, y1, cx, cy, x2, y2 = line.split()
        parts.append(f'<path d="M{x1} {y1} Q{cx} {cy} {x2} {y2}" marker-end="url(#tip)" />')
        labels.append(f'<text class="event" x="{middle[0]:.0f}" y="{middle[1] + 4:.0f}">{events}</text>')
    for name, (x, y) in PLACES.items():
        size = f'width="{2 * HALF_WIDTH}" height="{2 * HALF_HEIGHT}"'
        parts.append(f'<rect x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}" {size} rx="8" />')
        parts.append(f'<text x="{x}" y="{y + 5}">{name}</text>')
    return "\n".join([*parts, *labels, "</svg>"])


Point = tuple[float, float]


def _curve(a: Point, b: Point, bend: float) -> tuple[Point, Point, Point]:
    """(start, end, middle) of an arrow from box to box; the middle is `bend` to the left of the straight line."""
    across, down = b[0] - a[0], b[1] - a[1]
    length = (across**2 + down**2) ** 0.5
    aside = (down / length * bend, -across / length * bend)
    middle = ((a[0] + b[0]) / 2 + aside[0], (a[1] + b[1]) / 2 + aside[1])
    return _border(a, middle, aside), _border(b, middle, aside), middle


def _border(box: Point, towards: Point, aside: Point) -> Point:
    """Where a line from a box's middle, moved a little aside, leaves the box."""
    across, down = towards[0] + aside[0] - box[0], towards[1] + aside[1] - box[1]
    scale = min(
        HALF_WIDTH / abs(across) if across else float("inf"),
        HALF_HEIGHT / abs(down) if down else float("inf"),
    )
    return box[0] + across * scale, box[1] + down * scale
