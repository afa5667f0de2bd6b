"""The page itself, in pieces: the template, then the grid's data, the posters and, if asked for, the clips."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..core.figures import counted, dollars, local_time, money, number
from ..core.morning import Morning
from .charts import exact_span
from .clips import Clip, base64_pieces
from .commands import Commands
from .records import records, script_json, shown
from .view import LISTED, View

if TYPE_CHECKING:
    from jinja2 import Environment

CHUNK = 100
"""Jobs whose posters share one element of the page, which is parsed when the first of them is seen."""


def marker(batch: str) -> str:
    """What the second line of a report of this batch says."""
    return f"batchrunner report of {batch}"


def is_report(head: bytes, batch: str) -> bool:
    """Whether a file that begins so is a report of this batch."""
    return head.startswith(f"<!DOCTYPE html>\n<!-- {marker(batch)} -->\n".encode())


@cache
def _asset(name: str) -> str:
    return (resources.files("batchrunner.report") / "page" / name).read_text("utf-8")


@cache
def script() -> str:
    """The page's one script: its parts, in one function, in the order in which they begin."""
    parts = "\n".join(_asset(name) for name in ("tools.js", "cards.js", "gallery.js", "details.js"))
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def policy() -> str:
    """The page's Content-Security-Policy: its one style and one script, known by their hashes; pictures and clips from
    beside it or within it; nothing else, and nothing from elsewhere. No text can become markup or a script."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {digest(script())}",
            f"style-src {digest(_asset('page.css'))}",
            "img-src 'self' file: data: blob:",
            "media-src 'self' file: blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        )
    )


@cache
def _environment() -> Environment:
    """Everything that the template prints is made visible, and then escaped, unless it is marked as ours."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def harmless(value: Any) -> Any:
        return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=harmless, keep_trailing_newline=True)
    environment.filters.update(
        number=number,
        money=money,
        usd=dollars,
        span=exact_span,
        clock=local_time,
        count_of=counted,
        long=lambda text: shown(str(text)),
    )
    return environment


def page(
    morning: Morning,
    view: View,
    clips: Sequence[Sequence[Clip]],
    posters: Sequence[str | None],
    width: int,
    *,
    embed: bool,
    again: str,
    lost: Callable[[Clip], None] = lambda _clip: None,
) -> Iterator[bytes]:
    """A whole HTML document, in pieces of UTF-8.

    Args:
        morning, view: the facts, and what is said of them.
        clips: the outputs of each entry.
        posters: of each entry, as base64 of WebP, None where there is none.
        width: of the posters, in pixels.
        embed: whether the clips go in.
        again: the command that makes the page anew.
        lost: called with a clip that could not be read after all.
    """
    from markupsafe import Markup

    text = (
        _environment()
        .from_string(_asset("page.html"))
        .render(
            v=view,
            marker=marker(view.batch),
            policy=policy(),
            css=Markup(_asset("page.css")),  # noqa: S704  ours
            data=Markup(script_json(_data(morning, clips, view.commands))),  # noqa: S704  no `<` in it
            version=__version__,
            listed=LISTED,
            again=again,
        )
    )
    yield text.encode("utf-8", "backslashreplace")
    yield from (piece.encode("ascii") for piece in _posters(morning, posters, width))
    if embed:
        for index, kept in enumerate(clips):
            for number_, clip in enumerate(kept):
                if not clip.problem and clip.kind != "file":
                    yield from (piece.encode("ascii") for piece in _clip(f"{index}.{number_}", clip, lost))
    yield f"<script>{script()}</script>\n</body>\n</html>\n".encode()


def _data(morning: Morning, clips: Sequence[Sequence[Clip]], commands: Commands) -> dict[str, Any]:
    prompts: dict[str, int] = {}
    fields: dict[str, int] = {}
    jobs = []
    for record in records(morning.entries, clips):
        if "prompt" in record:
            record["p"] = prompts.setdefault(record.pop("prompt"), len(prompts))
        if "fields" in record:
            record["f"] = fields.setdefault(json.dumps(record.pop("fields")), len(fields))
        jobs.append(record)
    return {
        "db": commands.db,
        "chunk": CHUNK,
        "prompts": list(prompts),
        "fields": [json.loads(text) for text in fields],
        "jobs": jobs,
    }


_POSTERS = '<script type="application/json" class="posters" data-width="{width}">'
_POSTER = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def known_posters(page: Path, batch: str, width: int) -> dict[str, str]:
    """The posters of an earlier report of the batch, by the sha256 of their clips, so that a page that is made anew
    makes only what is new. Nothing where there is no such report, or its posters have another width."""
    found: dict[str, object] = {}
    begin = _POSTERS.format(width=width)
    with contextlib.suppress(OSError, ValueError), page.open(encoding="utf-8") as file:
        if not is_report((file.readline() + file.readline()).encode(), batch):
            return {}
        for line in file:
            if line.startswith(begin):  # a page has them a line each
                found.update(json.loads(line.removeprefix(begin).removesuffix("</script>\n")))
    return {k: v for k, v in found.items() if _DIGEST.fullmatch(k) and isinstance(v, str) and _POSTER.fullmatch(v)}


def _posters(morning: Morning, posters: Sequence[str | None], width: int) -> Iterator[str]:
    for first in range(0, len(posters), CHUNK):
        chunk = {
            entry.job["sha256"]: poster
            for entry, poster in zip(
                morning.entries[first : first + CHUNK], posters[first : first + CHUNK], strict=True
            )
            if poster is not None
        }
        yield f"{_POSTERS.format(width=width)}{script_json(chunk)}</script>\n"


def _clip(name: str, clip: Clip, lost: Callable[[Clip], None]) -> Iterator[str]:
    yield f'<script type="text/plain" class="clip" data-clip="{name}" data-type="{clip.type}">'
    try:
        yield from base64_pieces(clip)
    except OSError:
        lost(clip)
    yield "</script>\n"
