"""Which files a simulated task gives, and where they are not what was ordered: drawn once, when it is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

from .faults import FaultPlan

EXTENSIONS = {"video": "mp4", "image": "png", "audio": "wav"}
"""File extension by kind of output."""

MAX_OUTPUTS = 16
LAST = "last"
"""Name of a last frame, without extension; the others are `0`, `1`, ..."""

_NUMBERS = ("n", "num_outputs", "num_images", "number_of_images")
_WRONG = {"mp4": "png", "png": "mp4", "wav": "png"}


@dataclass(frozen=True, slots=True)
class Given:
    """What a task gives.

    Attributes:
        count: how many outputs.
        last_frame: whether a picture of the clip's end comes too.
        last_frame_gone: whether the URL of that has expired when it is handed out.
        wrong_kind: whether a file of another kind comes, under the name of the right one.
        seconds: length of a clip, whatever was ordered; 0 for what was.
        short_side: pixels, whatever was ordered; 0 for what was.
        jpeg: whether pictures are JPEG, under whatever name.
    """

    count: int = 1
    last_frame: bool = False
    last_frame_gone: bool = False
    wrong_kind: bool = False
    seconds: int = 0
    short_side: int = 0
    jpeg: bool = False

    def names(self, kind: str) -> tuple[str, ...]:
        """File names of the outputs, in order."""
        return tuple(f"{number}.{EXTENSIONS[kind]}" for number in range(self.count))

    def files(self, kind: str) -> tuple[str, ...]:
        """File names of everything."""
        return (*self.names(kind), *((f"{LAST}.png",) if self.last_frame else ()))

    def packed(self) -> str:
        """As the account keeps it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def unpacked(cls, text: str) -> Given:
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in orjson.loads(text).items() if name in known})


PLAIN = Given()


def draw(request: Mapping[str, Any], faults: FaultPlan, number: int) -> Given:
    """What task `number` will give: what its request asks for, but for the faults that are on."""
    asked = next((request[f] for f in _NUMBERS if isinstance(request.get(f), int)), 1)
    count = min(max(1, asked), MAX_OUTPUTS)
    if faults.fires("several", number):
        count = min(max(1, int(faults.value("several"))), MAX_OUTPUTS)
    if faults.fires("fewer", number):
        count = max(1, count - 1)
    gone = faults.fires("last_frame_gone", number)
    wanted = str(request.get("output_format", "")).lower() in {"jpeg", "jpg"}
    return Given(
        count=count,
        last_frame=faults.fires("last_frame", number) or gone or request.get("return_last_frame") is True,
        last_frame_gone=gone,
        wrong_kind=faults.fires("wrong_kind", number),
        seconds=max(1, int(faults.value("wrong_duration"))) if faults.fires("wrong_duration", number) else 0,
        short_side=max(16, int(faults.value("wrong_size"))) if faults.fires("wrong_size", number) else 0,
        jpeg=faults.fires("jpeg", number) or wanted,
    )


def made_as(given: Given, name: str) -> str:
    """The extension of what is really in a file: `mp4`, `png`, `jpg` or `wav`."""
    stem, _, extension = name.rpartition(".")
    if given.wrong_kind and stem != LAST:
        extension = _WRONG[extension]
    return "jpg" if extension == "png" and given.jpeg else extension
