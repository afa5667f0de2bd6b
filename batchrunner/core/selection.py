"""Which jobs a command speaks of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """`--only` and `--tag`. Several of one kind widen, both kinds together narrow; empty selects all.

    Attributes:
        only: globs (`*`, `?`, `[a-z]`) on the job's key or its shot's id.
        tags: tags of which the job has at least one.
    """

    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.only or self.tags)
