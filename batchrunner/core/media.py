"""What was ordered against what came: facts of a file, what a request asks for, and where the two differ.

A difference is a warning for people. It never changes a job's state: what came is what was paid for.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from .job import Output

SECONDS_OFF = 0.5
"""Seconds by which a clip may be shorter or longer than ordered. Clips are sold by the second, so a missing one must
show; encoders end on a whole group of frames, which makes 5 s of 24 frames a second 5.04 s, of 16 frames 5.06 s."""

RATIO_OFF = 0.04
"""Part by which width / height may differ from the ratio that was ordered. Generators round sides to multiples of 8 to
32 pixels (832 x 480 for 16:9 is 2.5 % off); the nearest two ratios on sale, 5:4 and 4:3, are 6.7 % apart."""

TOO_SMALL = 0.95
TOO_LARGE = 1.4
"""Parts of the ordered short side below and above which a picture is of another size. The next steps on sale are 1.5
apart; a square of the area of 16:9, as some services deliver it, has sides 1.33 times as long."""

PIXELS: Mapping[str, int] = {
    "360p": 360,
    "480p": 480,
    "540p": 540,
    "720p": 720,
    "1080p": 1080,
    "1440p": 1440,
    "2160p": 2160,
    "4k": 2160,
}
"""Short side in pixels by the name of a resolution, lower case. For pictures `1k`, `2k` and `4k` say no such thing."""

_SIZES = ("resolution", "quality", "mode", "size")
_RATIOS = ("aspect_ratio", "size", "ratio")
_LENGTHS = ("duration", "seconds")
_SOUNDS = ("audio", "sound", "generate_audio")
_NUMBERS = ("n", "num_outputs", "num_images", "number_of_images")
_REFERENCE = re.compile(r"image|video|frame")
"""Fields that give a picture: then its own ratio may be kept, and is none of ours to check."""
_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")

LAST_FRAME = 0
"""`Kept.number` of a clip's last frame."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file's container says of it; None for what it does not say.

    Attributes:
        duration_s: length in seconds.
        width, height: of the picture as it is shown, in pixels.
        codec: of the picture, or of the sound where there is none; such as `h264`, `png`, `mp3`.
        fps: pictures a second, on average.
        audio: whether a clip has sound.
        frames: pictures that were decoded; only where somebody has decoded it (`check --decode`).
        broken: why it can't be decoded to its end; None where it can, or nobody has tried.
    """

    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    fps: float | None = None
    audio: bool | None = None
    frames: int | None = None
    broken: str | None = None

    def words(self) -> dict[str, Any]:
        """As `media` in JSON: the first four always, the rest where known."""
        return {name: value for name in _FACTS if (value := getattr(self, name)) is not None or name in _ALWAYS}

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Facts:
        """The facts in a `media` object; what else stands there is left."""
        return cls(**{name: words[name] for name in _FACTS if name in words})


_FACTS = tuple(f.name for f in fields(Facts))
_ALWAYS = frozenset({"duration_s", "width", "height", "codec"})


@dataclass(frozen=True, slots=True)
class Ordered:
    """What a request asks for, as far as it can be told from a file; None, or False, where it says nothing.

    Attributes:
        kind: `video`, `image` or `audio`: the model's kind of output.
        seconds: length of a clip.
        short_side: in pixels.
        ratio: width to height.
        sound: whether sound was asked for.
        outputs: how many files.
    """

    kind: str = "video"
    seconds: float | None = None
    short_side: int | None = None
    ratio: tuple[int, int] | None = None
    sound: bool = False
    outputs: int | None = None


def ordered(kind: str, request: Mapping[str, Any]) -> Ordered:
    """Read an order out of a request.

    Models name the same things differently (REAPI.md), so a value is known by what it looks like; a name that nobody
    knows asks for nothing, and nothing is compared with it.

    Args:
        kind: the model's kind of output.
        request: with the model's defaults filled in, and under the common names what the model calls otherwise.
    """
    names = PIXELS if kind == "video" else {}
    sizes = (names.get(str(request[f]).lower()) for f in _SIZES if f in request)
    ratios = (_RATIO.fullmatch(str(request[f])) for f in _RATIOS if f in request)
    ratio = next(((int(m[1]), int(m[2])) for m in ratios if m and int(m[1]) and int(m[2])), None)
    if any(_refers(f) and request[f] and not isinstance(request[f], bool | int) for f in request):
        ratio = None
    return Ordered(
        kind=kind,
        seconds=next((n for f in _LENGTHS if (n := _number(request.get(f))) is not None), None),
        short_side=next((s for s in sizes if s is not None), None),
        ratio=ratio,
        sound=any(request.get(f) is True for f in _SOUNDS),
        outputs=next((int(n) for f in _NUMBERS if (n := _number(request.get(f))) is not None), None),
    )


@functools.cache
def _refers(field: str) -> bool:
    """Whether a field of that name gives a picture."""
    return _REFERENCE.search(field) is not None


def _number(value: object) -> float | None:
    """A whole number above zero, also where it was given as text (`5`, `5s`)."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,4}s?", value):
        value = int(value.removesuffix("s"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if 0 < value <= 10_000 else None


def differences(order: Ordered, facts: Facts, kind: str) -> tuple[str, ...]:
    """Where a file is not what was ordered, a sentence each. What the file does not say is not held against it.

    Args:
        order: see `ordered`.
        facts: of the file.
        kind: of the file; one of another kind than the order's is an extra, which nobody has ordered.
    """
    found = [] if facts.broken is None else [f"it can't be decoded to its end: {facts.broken}"]
    if kind != order.kind:
        return tuple(found)
    if order.seconds is not None and facts.duration_s is not None:
        off = facts.duration_s - order.seconds
        if abs(off) > SECONDS_OFF:
            found.append(f"{order.seconds:g} s were ordered, {facts.duration_s:g} s came")
    found += _size(order, facts)
    if order.sound and facts.audio is False:
        found.append("sound was ordered, and there is none")
    return tuple(found)


def _size(order: Ordered, facts: Facts) -> list[str]:
    wide, high = facts.width, facts.height
    if not wide or not high:
        return []
    found = []
    if order.short_side is not None:
        # A service may hold the short side (720 x 720) or the area (960 x 960 for a square): either is what was sold.
        short, area = min(wide, high) / order.short_side, wide * high / (order.short_side**2 * 16 / 9)
        if short < TOO_SMALL and area < TOO_SMALL:
            found.append(f"{order.short_side} pixels on the short side were ordered, {wide}x{high} came")
        elif short > TOO_LARGE:
            found.append(f"{order.short_side} pixels on the short side were ordered, the larger {wide}x{high} came")
    if order.ratio is not None:
        wanted = order.ratio[0] / order.ratio[1]
        if abs(wide / high / wanted - 1) > RATIO_OFF:
            found.append(f"the ratio {order.ratio[0]}:{order.ratio[1]} was ordered, {wide}x{high} came")
    return found


# --- What is kept of a job's outputs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """One file that a task gave, as the ledger keeps it.

    Attributes:
        number: 1, 2, ... in the task's order; `LAST_FRAME` for a clip's last frame.
        kind: `video`, `image` or `audio`.
        url: where it came from; it may have expired since.
        output: the finished file; None for a last frame that could not be fetched.
        facts: what its container says.
        warnings: where it is not what was ordered, and what else people should know.
    """

    number: int
    kind: str
    url: str
    output: Output | None
    facts: Facts = Facts()
    warnings: tuple[str, ...] = ()


def warnings_of(kept: Sequence[Kept]) -> list[str]:
    """All warnings of a job, each with which file it is about where that is not the first."""
    found = []
    for one in kept:
        which = "last frame: " if one.number == LAST_FRAME else f"output {one.number}: " if one.number > 1 else ""
        found += [which + warning for warning in one.warnings]
    return found


def judged(order: Ordered, kept: Sequence[Kept]) -> tuple[Kept, ...]:
    """The outputs of a task, the first of them with a word about their number where that is not what was ordered."""
    count = sum(1 for one in kept if one.number != LAST_FRAME and one.kind == order.kind)
    if order.outputs is None or count == order.outputs or not kept:
        return tuple(kept)
    word = f"{order.outputs} outputs were ordered, {count} came"
    return (replace(kept[0], warnings=(*kept[0].warnings, word)), *kept[1:])
