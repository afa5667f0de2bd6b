"""The ground that outputs will stand on, looked at before anything is paid for.

A name that is taken is never overwritten. What the simulator made is a rehearsal: a paid run moves it aside
into `simulated/`, and a simulated run beside paid files gives its own another name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .stores import ASIDE, Store


@dataclass(frozen=True, slots=True)
class Site:
    """Where the output of a job that is yet to be sent will stand.

    Attributes:
        job_id: the job's row in the ledger.
        store: where the batch's outputs are kept.
        name: the final name there, so far as it is known.
        ours: every task id that the job's key has had.
    """

    job_id: int
    store: Store
    name: str
    ours: Collection[str]


def clear(sites: Sequence[Site], *, simulate: bool, rename: Callable[[int, str], None]) -> list[str]:
    """Make the ground ready; what can't be cleared is returned, a sentence each. Blocks: use a thread.

    Args:
        sites: the jobs that may be sent.
        simulate: whether this run is a rehearsal.
        rename: called with a job's row and its new output, relative to the store, where a rehearsal has to give way.

    Raises:
        OSError, Transient: see `Store`.
    """
    for store in dict.fromkeys(site.store for site in sites):
        store.survey()
    in_the_way = []
    for site in sites:
        problem = site.store.precheck(site.name, site.ours)
        if problem is None:
            continue
        if simulate:
            rename(site.job_id, site.store.free_name(site.name, ASIDE))
        elif site.store.find_simulated(site.name):
            site.store.move_aside(site.name)
        else:
            in_the_way.append(problem)
    return in_the_way
