"""What the manifests of the batches at work bound for all workers together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..core.limits import Bounds as Limit
from ..core.limits import tightest
from ..ledger.due import Batch
from ..ledger.postgres.meters import Bounds, Together


def bounds_of(batches: Sequence[Batch], at_work: Mapping[int, set[str]]) -> dict[str, Bounds]:
    """The bounds of each account: the tightest of what those batches say that have jobs for it, of the whole, of the
    account and of models. Where a batch needs several accounts, what it says of the whole holds for them together too;
    of its polls each has an equal part.

    Args:
        batches: what the ledger knows of them.
        at_work: row id of each that is at work -> the providers that it needs.
    """
    mixed = [batch for batch in batches if len(at_work[batch.id]) > 1]
    joined = frozenset[str]().union(*(at_work[batch.id] for batch in mixed))
    found: dict[str, Bounds] = {}
    for provider in {name for batch in batches for name in at_work[batch.id]}:
        its = [batch for batch in batches if provider in at_work[batch.id]]
        limits = tightest(batch.limits for batch in its)
        own = limits.providers.get(provider, Limit())
        rate = min([batch.submits_per_minute for batch in its] + [own.submits_per_minute or math.inf])
        flight = min([float(batch.in_flight) for batch in its] + [own.in_flight or math.inf])
        together = _together(joined, mixed) if provider in joined else None
        polls = [b.limits.polls_per_minute / len(at_work[b.id]) for b in its if b.limits.polls_per_minute is not None]
        found[provider] = Bounds(rate / 60.0, int(flight), limits.models, together, min(polls, default=None))
    return found


def _together(providers: frozenset[str], batches: Sequence[Batch]) -> Together:
    rate = min(batch.submits_per_minute for batch in batches)
    return Together(providers, Limit(rate, min(batch.in_flight for batch in batches)))
