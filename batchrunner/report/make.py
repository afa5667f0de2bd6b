"""Making the page's file: find the clips, draw the stills, render, and write it whole."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..core.morning import Morning
from ..core.places import Remote, place_of
from . import clips, files, posters, render
from .commands import Commands, word
from .view import view

NAME = "report.html"
"""The page's name in the folder of a batch's outputs."""

EMBEDDABLE = 300_000_000
"""Bytes of clips that go into one page: a browser opens no text beyond some 512 MB, and base64 adds a third."""

Track = Callable[[Iterator[str | None], int], Iterator[str | None]]
"""Given the stills that are being made, and how many there will be: passes them through, and may show a bar."""


class TooLarge(Exception):
    """The clips are too large to be embedded. Nothing was written."""


class NoFolder(Exception):
    """There is no folder of outputs beside which the page could stand. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        ledger: absolute path of the ledger, or its URL, for the commands in the page.
        out: where the page goes, absolute; None for `NAME` beside the outputs.
        chosen: the options by which the jobs were chosen, as they were given; for the page to say so.
        embed: whether the clips go in.
        stills: whether to make stills of them.
        now: unix seconds.
    """

    ledger: Path | str
    out: Path | None = None
    chosen: tuple[str, ...] = ()
    embed: bool = False
    stills: bool = True
    now: float = 0.0


@dataclass(slots=True)
class Made:
    """What was written.

    Attributes:
        path: where.
        size: bytes.
        problems: outputs that are missing, or are not what was stored.
        unread: outputs that could not be embedded after all.
    """

    path: Path
    size: int = 0
    problems: int = 0
    unread: list[Path] = field(default_factory=list)


def make(morning: Morning, order: Order, track: Track = lambda stills, _: stills) -> Made:
    """Write the page.

    Raises:
        NoFolder: the outputs are not on this machine, and `out` is None.
        NotOurs: a file of that name is not a report of this batch.
        TooLarge: see `EMBEDDABLE`.
        OSError: the disk failed, or the folder is not there.
    """
    place = place_of(morning.status["output_dir"])
    if order.out is None and isinstance(place, Remote):
        raise NoFolder(f"the outputs of {morning.batch} are in object storage; say with --out where the page goes")
    folder = Path(str(place))
    if order.out is None:
        folder.mkdir(parents=True, exist_ok=True)
    made = Made(folder / NAME if order.out is None else order.out)

    def ours(head: bytes) -> bool:
        return render.is_report(head, morning.batch)

    files.look(made.path, ours)  # before the work
    outputs = [
        tuple(clips.find(one["path"], one["bytes"], made.path.parent, one.get("role", "")) for one in e.job["outputs"])
        for e in morning.entries
    ]
    made.problems = sum(1 for found in outputs for clip in found if clip.problem)
    if order.embed:
        _check_embeddable(outputs)
    width = posters.width_for(sum(bool(found) for found in outputs))
    commands = Commands(order.ledger)
    page = render.page(
        morning,
        view(morning, outputs, commands, selected=shlex.join(order.chosen), now=order.now),
        outputs,
        _stills(morning, outputs, width, made.path, track) if order.stills else [None] * len(outputs),
        width,
        embed=order.embed,
        again=commands.say("report", *map(word, _again(morning, order))),
        lost=lambda clip: made.unread.append(clip.path),
    )
    made.size = files.write(made.path, page, ours)
    return made


def _again(morning: Morning, order: Order) -> list[str]:
    out = [] if order.out is None else ["--out", str(order.out)]
    return [morning.batch, *order.chosen, *(["--embed"] if order.embed else []), *out]


def _check_embeddable(outputs: list[tuple[clips.Clip, ...]]) -> None:
    size = sum(clip.size or 0 for found in outputs for clip in found if not clip.problem)
    if size > EMBEDDABLE:
        raise TooLarge(f"the clips have {size / 1e6:,.0f} MB; a page opens with some {EMBEDDABLE // 1_000_000} at most")


def _stills(
    morning: Morning, outputs: list[tuple[clips.Clip, ...]], width: int, page: Path, track: Track
) -> list[str | None]:
    """A still for each entry, None where there is none; taken over from the page that is replaced where it has it."""
    known = render.known_posters(page, morning.batch, width)
    found: list[str | None] = [None] * len(outputs)
    wanted: dict[int, Path] = {}
    for index, (entry, kept) in enumerate(zip(morning.entries, outputs, strict=True)):
        if not kept or kept[0].problem or kept[0].kind not in ("video", "image"):
            continue
        found[index] = known.get(entry.job["sha256"])
        if found[index] is None:
            wanted[index] = kept[0].path
    for index, still in zip(wanted, track(posters.make(wanted.values(), width), len(wanted)), strict=True):
        found[index] = still
    return found
