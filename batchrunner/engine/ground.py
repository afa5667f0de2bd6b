"""The ground that outputs will stand on, looked at before anything is paid for.

A name that is taken on disk is never overwritten. What the simulator made is a rehearsal: a paid run moves it aside
into `simulated/`, and a simulated run beside paid files gives its own another name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .files import find_simulated, free_name, precheck, sidecar_path

ASIDE = "simulated"
"""Folder in the output folder that rehearsed clips are moved to."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the output of a job that is yet to be sent will stand.

    Attributes:
        job_id: the job's row in the ledger.
        root: the batch's output folder.
        target: the final name, so far as it is known.
        ours: every task id that the job's key has had.
    """

    job_id: int
    root: Path
    target: Path
    ours: Collection[str]


def clear(sites: Iterable[Site], *, simulate: bool, rename: Callable[[int, str], None]) -> list[str]:
    """Make the ground ready; what can't be cleared is returned, a sentence each. Blocks: use a thread.

    Args:
        sites: the jobs that may be sent.
        simulate: whether this run is a rehearsal.
        rename: called with a job's row and its new output, relative to the folder, where a rehearsal has to give way.

    Raises:
        OSError: the disk failed.
    """
    in_the_way = []
    for site in sites:
        problem = precheck(site.target, site.ours)
        if problem is None:
            continue
        if simulate:
            rename(site.job_id, free_name(site.target, ASIDE).relative_to(site.root).as_posix())
        elif find_simulated(site.target):
            _move_aside(site)
        else:
            in_the_way.append(problem)
    return in_the_way


def _move_aside(site: Site) -> None:
    """The clip first: what a run that dies in between leaves is still known, by its sidecar, as a rehearsal's."""
    aside = site.root / ASIDE / site.target.relative_to(site.root)
    aside.parent.mkdir(parents=True, exist_ok=True)
    there = os.path.lexists(site.target)
    if os.path.lexists(sidecar_path(aside)) or (there and os.path.lexists(aside)):
        aside = free_name(aside, "old")
    if there:
        os.rename(site.target, aside)
    os.rename(sidecar_path(site.target), sidecar_path(aside))
