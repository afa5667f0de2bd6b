"""What a run would do, cost and take: a manifest against the ledger, changing nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from .core.chain import Link, needs
from .core.diff import Change, JobChange, Known, Totals, diff, field_changes
from .core.forecast import Forecast, Kind, forecast
from .core.frozen import Frozen, drift
from .core.job import JobSpec, State
from .core.polling import Latencies
from .core.promotion import Winner, promoted
from .core.selection import Selection
from .engine.clock import wall
from .environment import THIS_MACHINE, access, connect, has_key, kind_of
from .exits import UsageError
from .ledger import naming, pace, promotions, queries
from .ledger.address import Address
from .ledger.sql import Connection, Row

if TYPE_CHECKING:
    from .manifest import Manifest, Promotion
    from .providers.base import Provider

ASK_SECONDS = 3.0
"""How long to wait for the balance: a plan is looked at, and never waits for a network."""

DRIFTED = 20
"""Jobs that a refusal names."""


@dataclass(slots=True)
class Plan:
    """A manifest's changes, their sums, and what they meet.

    Attributes:
        batch: its name.
        file: the manifest.
        max_credits: the budget, None for none.
        committed: credits of the batch that are spent, reserved or at risk already.
        forecast: how long a run would take.
        links: which job needs which other one's output, of all jobs that are asked for.
        waiting: selected jobs that a run would pay for -> the jobs that they need, and that are neither selected nor
            done: they would wait.
        totals, changes: see `core.diff`.
    """

    batch: str
    file: Path
    max_credits: int | None
    committed: int
    forecast: Forecast = Forecast(0.0, 0.0)  # noqa: RUF009  frozen
    totals: Totals = field(default_factory=Totals.empty)
    changes: list[JobChange] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    waiting: dict[str, list[str]] = field(default_factory=dict)

    @property
    def charged(self) -> Iterator[JobSpec]:
        """The jobs that a run would pay for."""
        return (c.spec for c in self.changes if c.spec is not None)


def make_plans(manifests: Sequence[Manifest], connection: Connection | None, chosen: Selection) -> list[Plan]:
    """The plan of every manifest.

    Args:
        manifests: valid ones.
        connection: the ledger; None where there is none.
        chosen: `--only`, `--tag`.

    Raises:
        UsageError: two manifests name one batch, or nothing is selected.
    """
    names = [m.batch for m in manifests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two manifests name the batch {name}; give each a name of its own")
    plans = [make_plan(manifest, connection, chosen) for manifest in manifests]
    if chosen and not any(p.changes for p in plans):
        raise UsageError(f"nothing is selected: no job of {', '.join(names)} matches --only and --tag")
    return plans


def make_plan(manifest: Manifest, connection: Connection | None, chosen: Selection) -> Plan:
    """Compare a manifest with the ledger."""
    rows, committed = _known(connection, manifest.batch)
    found = Plan(manifest.batch, manifest.file, manifest.max_credits, committed)
    left_out: set[str] = set()

    def asked() -> Iterator[JobSpec]:
        promoted = promotions.promoted_specs(connection, manifest.batch) if connection is not None else ()
        for spec in chain(manifest.jobs, promoted):  # what was promoted is asked for too, by no manifest
            if chosen and not chosen.matches(spec.key, spec.shot, spec.tags):
                left_out.add(spec.key)
            found.links += [Link(need.job, spec.key, need.url) for need in needs(spec.request)]
            yield spec

    undone: set[str] = set()
    for change in diff(asked(), _revisions(rows)):
        if change.job in left_out:
            if change.state is not State.SUCCEEDED:
                undone.add(change.job)
            continue
        if change.change is Change.REMOVED and not _selects(chosen, rows[change.job][-1]):
            continue
        found.changes.append(change)
        found.totals.add(change)
    paid = {spec.key for spec in found.charged}
    for link in found.links:
        if link.child in paid and link.parent in undone:
            found.waiting.setdefault(link.child, []).append(link.parent)
    found.forecast = _forecast(found, connection, manifest)
    return found


def _known(connection: Connection | None, batch: str) -> tuple[Mapping[str, list[Row]], int]:
    """The batch's jobs in the ledger, and its credits that are spent, reserved or at risk."""
    if connection is None:
        return {}, 0
    committed = queries.committed(connection, batch)
    return (queries.known_jobs(connection, batch), committed) if committed is not None else ({}, 0)


def _revisions(rows: Mapping[str, list[Row]]) -> dict[str, list[Known]]:
    return {
        key: [
            Known(r["fingerprint"], r["revision"], State(r["state"]), bool(r["current"]), r["provider"], r["request"])
            for r in revisions
        ]
        for key, revisions in rows.items()
    }


def _selects(chosen: Selection, row: Row) -> bool:
    return not chosen or chosen.matches(row["key"], row["shot"], json.loads(row["tags"]))


def plan_promotion(promotion: Promotion, connection: Connection) -> Plan:
    """What promoting the winners of a batch would do. A job that is new shows what the profile changes.

    Raises:
        Unknown, UsageError: see `winners_of`.
    """
    found = winners_of(promotion, connection)
    rows, committed = _known(connection, promotion.batch)
    plan = Plan(promotion.batch, promotion.file, promotion.max_credits, committed)
    chosen = promoted(promotion.profile)
    mine = {key: rows for key, rows in rows.items() if chosen.matches(key, "", ())}
    winners = {spec.key: winner for winner, spec in found}
    for change in diff((spec for _, spec in found), _revisions(mine)):
        if change.change is Change.REMOVED and change.state is not State.PENDING:
            continue  # it was paid for, and stays
        if change.change is Change.NEW and change.spec is not None:
            winner = winners[change.job]
            change = replace(change, fields=field_changes(winner.provider, winner.request, change.spec))
        plan.changes.append(change)
        plan.totals.add(change)
    plan.forecast = _forecast(plan, connection, promotion)
    return plan


def winners_of(promotion: Promotion, connection: Connection) -> list[tuple[Winner, JobSpec]]:
    """Every approved job of the promotion's batch, and what it becomes.

    Raises:
        Unknown: there is no such batch.
        UsageError: nothing is approved, the profile changes nothing or does not fit, or a price is not known although
            there is a budget.
    """
    from .manifest import NotPromotable

    batch = naming.find_batch(connection, promotion.batch)
    found: list[tuple[Winner, JobSpec]] = []
    problems: list[str] = []
    approved = promotions.winners(connection, batch["id"])
    for winner in approved:
        try:
            spec = promotion.spec(winner)
        except NotPromotable as error:
            problems += [f"{winner.key}: {problem}" for problem in error.problems]
            continue
        if spec is None:
            continue
        if spec.credits is None and promotion.max_credits is not None:
            problems.append(f"{spec.key}: no price is known, and there is a budget; give it under prices:")
        found.append((winner, spec))
    if problems:
        more = [f"... and {len(problems) - DRIFTED} more"] if len(problems) > DRIFTED else []
        raise UsageError("the winners can't be promoted, and nothing was sent", [*problems[:DRIFTED], *more])
    if not approved:
        raise UsageError(f"no job of {promotion.batch} is approved; `batchrunner approve JOB` says which are")
    if not found:
        raise UsageError(f"profile {promotion.profile} changes nothing: what was approved asks for the same already")
    return found


def promotion_of(
    promotion: Promotion, max_credits: int | None, who: str, connection: Connection
) -> promotions.Promoted:
    """What the ledger records of a promotion. Budget, limits and retries are the manifest's of today, and the smaller
    of its budget and `--max-credits` holds; the batch's folder and profile stay as they were recorded.

    Raises:
        Unknown, UsageError: see `winners_of`.
    """
    caps = [c for c in (promotion.max_credits, max_credits) if c is not None]
    return promotions.Promoted(
        promotion.batch,
        promotion.profile,
        winners_of(promotion, connection),
        min(caps) if caps else None,
        promotion.submits_per_minute,
        promotion.in_flight,
        promotion.retry,
        promotion.limits.packed(),
        who,
    )


# --- How long --------------------------------------------------------------------------------------------


def _forecast(plan: Plan, connection: Connection | None, manifest: Manifest | Promotion) -> Forecast:
    """By what earlier runs of this ledger have learned, and the smaller of the manifest's limits and the learned."""
    latencies = Latencies()
    out: list[tuple[str, int | None, int]] = []
    limits: Mapping[str, float | None] = {}
    if connection is not None:
        for model, seconds, took in pace.latencies(connection):
            latencies.add(model, seconds, took)
        out = queries.tasks_out(connection, plan.batch)
        limits = pace.known(connection, manifest.provider) or {}
    waiting: dict[tuple[str, int | None], int] = {}
    for spec in plan.charged:
        waiting[spec.model, spec.seconds] = waiting.get((spec.model, spec.seconds), 0) + 1
    per_minute = min(manifest.submits_per_minute, limits.get("submits_per_minute") or manifest.submits_per_minute)
    slots = min(manifest.in_flight, limits.get("in_flight") or manifest.in_flight)
    return forecast(
        [Kind(count, latencies.of(*kind)) for kind, count in waiting.items()],
        [Kind(count, latencies.of(model, seconds)) for model, seconds, count in out],
        per_minute / 60.0,
        int(slots),
    )


# --- What is on the account ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Funds:
    """An account's balance in credits; where it was not told (None), why, or an empty text where nobody asked."""

    provider: str
    credits: int | None = None
    why_not: str = ""


def funds(db: Address, connection: Connection | None, providers: Collection[str]) -> list[Funds]:
    """Ask each service for the balance: free, once, side by side, for at most `ASK_SECONDS`, and only with a key, where
    it has such a call, and of a ledger that is this service's (or nobody's yet). Never raises for what a network does.

    Returns:
        one for each provider, sorted; of several each has a balance or says why not.
    """
    if _is_simulated(db):
        return []
    found: dict[str, Provider | Funds] = {name: _fundable(name, connection) for name in sorted(providers)}
    able = [one for one in found.values() if not isinstance(one, Funds)]
    told = asyncio.run(_ask(able)) if able else {}
    shown = [one if isinstance(one, Funds) else told[name] for name, one in found.items()]
    return shown if len(shown) > 1 else [replace(one, why_not="") if one.why_not in _PLAIN else one for one in shown]


NO_CALL = "the service has no call for it"
NO_KEY = "no key is set"
_PLAIN = frozenset({NO_CALL, NO_KEY})
"""What goes without saying where there is one account."""


def _fundable(name: str, connection: Connection | None) -> Provider | Funds:
    """The account, where it can be asked."""
    try:
        kind = kind_of(name)
        if not kind.capabilities.balance:
            return Funds(name, None, NO_CALL)
        if not has_key(kind):
            return Funds(name, None, NO_KEY)
        account = connect(kind, access(kind), wall)
    except UsageError as error:
        return Funds(name, None, str(error))
    bound = None if connection is None else queries.bound_origin(connection, name)
    if bound not in (None, THIS_MACHINE if account.loopback else account.origin):
        return Funds(name, None, f"this ledger belongs to {bound}, and the key to {account.origin}")
    return account


def _is_simulated(db: Address) -> bool:
    return db.stem.endswith(".sim") if isinstance(db, Path) else db == db.simulated


async def _ask(accounts: Sequence[Provider]) -> dict[str, Funds]:
    return {told.provider: told for told in await asyncio.gather(*map(_ask_one, accounts))}


async def _ask_one(account: Provider) -> Funds:
    from .providers.base import Balance

    try:
        async with asyncio.timeout(ASK_SECONDS):
            answer = await account.balance()
    except TimeoutError:
        return Funds(account.name, None, f"no answer in {ASK_SECONDS:.0f} s")
    finally:
        await account.aclose()
    if isinstance(answer, Balance):
        return Funds(account.name, answer.credits)
    problem = getattr(answer, "problem", None)
    return Funds(account.name, None, problem.message if problem is not None else "no answer")


# --- Frozen ----------------------------------------------------------------------------------------------


def hold_to(frozen: Frozen, manifests: Sequence[Manifest], chosen: Selection, connection: Connection | None) -> None:
    """Refuse what would pay for anything that the frozen plan does not pay for.

    Args:
        frozen: the plan.
        manifests: what the run would record.
        chosen: `--only`, `--tag` of the run.
        connection: the ledger; None where there is none.

    Raises:
        UsageError: it has drifted; names the jobs, and how.
    """
    planned = {b.batch: b for b in frozen.batches}
    names = [m.batch for m in manifests]
    if sorted(names) != sorted(planned):
        raise UsageError(f"the plan is for {', '.join(planned)}, and the run for {', '.join(names)}")
    found: list[str] = []
    for plan in make_plans(manifests, connection, chosen):
        found += [f"{key} {how}" for key, how in drift(planned[plan.batch], plan.changes)]
    if found:
        more = [f"... and {len(found) - DRIFTED} more"] if len(found) > DRIFTED else []
        raise UsageError(
            f"the plan of {frozen.made_at} does not hold any more, and nothing was sent; if this is what you want, "
            "make the plan again",
            [*found[:DRIFTED], *more],
        )
