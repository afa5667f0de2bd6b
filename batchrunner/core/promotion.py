"""From a draft to its final: which job a promotion makes, so far as that is a rule and not a manifest's word.

A promoted job stands beside its draft in the same batch. Its key is the draft's and `@PROFILE`. No manifest can make
such a key: there the last `-N` is always the take, an id has no `@`, and what follows the `@` of a matrix point has a
`=`, which the name of a profile can't have.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from .selection import Selection


class Verdict(StrEnum):
    """What a person thinks of a finished clip."""

    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Winner:
    """An approved job of a manifest: exactly what was approved.

    Attributes:
        job_id: row id in the ledger.
        revision: of `key`.
        matrix: variable to value, for the profile's variables.
        request: the exact request, `model` included.
        output, named: see `JobSpec`.
        key, shot, take, tags, provider: see `JobSpec`.
    """

    job_id: int
    key: str
    revision: int
    shot: str
    take: int
    matrix: dict[str, Any]
    tags: tuple[str, ...]
    provider: str
    request: dict[str, Any]
    output: str
    named: bool


def promoted_key(key: str, profile: str) -> str:
    """The key of the job that `key` is promoted to."""
    return f"{key}@{profile}"


def promoted(profile: str) -> Selection:
    """The jobs that were promoted to a profile."""
    return Selection(only=(f"*@{profile}",))


def promoted_output(output: str, profile: str, *, named: bool) -> str:
    """The file beside the draft's: `a/dog-1.mp4` -> `a/dog-1@final.mp4`; without an extension where that is still to
    come (see `JobSpec.output`)."""
    path = PurePosixPath(output)
    stem, suffix = (str(path.with_suffix("")), path.suffix) if named else (output, "")
    return f"{stem}@{profile}{suffix}"
