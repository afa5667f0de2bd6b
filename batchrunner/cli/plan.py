"""`plan`: what a run would do, and what it would cost. `run --dry-run` prints the same."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import planfile
from ..core.chain import DRAW, needs, spoken
from ..core.diff import CHARGED, Change, FieldChange, JobChange
from ..core.forecast import Forecast
from ..core.frozen import Arguments
from ..core.job import State
from ..core.pricing import usd_text
from ..core.text import visible
from ..engine.clock import wall
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from ..planning import Funds, Plan, funds, make_plans
from .ledgers import reading
from .options import (
    balance_option,
    db_option,
    file_option,
    json_option,
    ledger_path,
    manifest_options,
    selection,
    selection_options,
)
from .tables import clip, counted, json_text, money, note, number, print_json, print_table, say, span, utc_time, warn

if TYPE_CHECKING:
    from ..manifest import Manifest

ROWS = 40
"""Jobs that are listed for people."""

VALUE = 40
"""Columns that the value of a changed field may take, for people."""

NAMED = 3
"""Jobs that are named, for people, of those that would wait for what is not selected."""

ORDER = (Change.CHANGED, Change.REMOVED, Change.NEW, Change.IN_FLIGHT)
"""Groups in the order in which they are listed; what is unchanged is only counted."""


@click.command(
    epilog="""\b
Examples:
  batchrunner plan nightly.yaml
  batchrunner plan nightly.yaml --profile final --only 'corgi-*'
  batchrunner plan nightly.yaml --json | jq '.summary'
  batchrunner plan film.yaml --graph dot | dot -Tsvg > film.svg
  batchrunner plan nightly.yaml --out plan.json     freeze it: `run --plan plan.json` pays for this, or for nothing

\b
new        never sent: a run pays for it        changed    asked for differently: a run pays for it
unchanged  ended already: left alone            in flight  sent already: followed, no second payment
removed    no longer in the manifest: never sent from now on
"""
)
@manifest_options
@selection_options
@file_option("--out", help="Freeze the plan in this file, for run --plan.")
@click.option("--requests", is_flag=True, help="Show the exact request of every job that a run would pay for.")
@click.option(
    "--graph",
    type=click.Choice(sorted(DRAW)),
    is_flag=False,
    flag_value="mermaid",
    metavar="[mermaid|dot]",
    help="Draw which job needs which other one's output, instead of the table.",
)
@balance_option
@json_option
@db_option
def plan(
    manifests: tuple[str, ...],
    variables: dict[str, str],
    profile: str | None,
    only: tuple[str, ...],
    tags: tuple[str, ...],
    out: Path | None,
    requests: bool,
    graph: str | None,
    no_balance: bool,
    as_json: bool,
    db: Address | None,
) -> int:
    """Show what a run would do, what it would cost, and how long it would take.

    Compares the manifest with the ledger, and with the account's balance where a key is set. Nothing is recorded or
    sent.
    """
    from .loading import load_all, models_in_use

    if graph is not None and as_json:
        raise UsageError("--graph and --json exclude each other; --json says under needs what each job needs")
    loaded = load_all(manifests, profile=profile, variables=variables, as_json=as_json)
    path = ledger_path(db)
    with reading(path) as connection:
        plans = make_plans(loaded, connection, selection(only, tags))
        asked = no_balance or graph is not None
        accounts = [] if asked else funds(path, connection, providers_of(loaded))
    if out is not None:
        arguments = Arguments(profile, variables, only, tags)
        made_at, known = utc_time(wall()), models_in_use()
        planfile.write(out, planfile.freeze(plans, arguments, path=out, ledger=path, made_at=made_at, known=known))
    if graph is not None:
        for found in plans:
            say(drawn(found, graph).rstrip("\n"))
    else:
        print_plan(plans, as_json=as_json, accounts=accounts, requests=requests)
    if out is not None:
        (note if as_json or graph is not None else say)(
            f"frozen in {visible(str(out))}: batchrunner run --plan {visible(shlex.quote(str(out)))}"
        )
    return EXIT_OK


def print_plan(plans: Sequence[Plan], *, as_json: bool, accounts: Sequence[Funds], requests: bool = False) -> int:
    """Print plans; returns the exit code.

    Args:
        plans: one for each manifest.
        as_json: one object, or with several plans `{"plans": [...]}`.
        accounts: what is left on each; none where nobody asked.
        requests: whether the request of every job that a run would pay for is shown.
    """
    for found in plans:
        if found.totals.unpriced:
            unpriced = counted(found.totals.unpriced, "job")
            warn(f"{found.batch}: {unpriced} without a known price; give it in the manifest under prices:")
    if as_json:
        texts = [plan_json(p, accounts, requests=requests) for p in plans]
        print_json(texts[0] if len(texts) == 1 else {"plans": texts})
    else:
        for found in plans:
            _show(found)
            for spec in found.charged if requests else ():
                say(f"{spec.key}: {visible(json_text(spoken(spec.request), indent=None))}")
    _show_accounts(plans, accounts, as_json=as_json)
    return EXIT_OK


def drawn(found: Plan, how: str) -> str:
    """The jobs of a plan that need others, and those others, as a graph (`core.chain.DRAW`). Jobs that stand alone are
    left out."""
    shown = {c.job for c in found.changes}
    links = [k for k in found.links if k.child in shown]
    ends = {key for k in links for key in (k.parent, k.child)}
    told = {c.job: _told_of(c) for c in found.changes if c.job in ends}
    return DRAW[how]({**told, **dict.fromkeys(sorted(ends - shown), "not selected")}, links)


def _told_of(change: JobChange) -> str:
    word = change.change.value.replace("_", " ")
    if change.change not in CHARGED:
        return word
    return f"{word}, " + ("price unknown" if change.credits is None else f"{number(change.credits)} credits")


# --- For scripts -----------------------------------------------------------------------------------------


def plan_json(found: Plan, accounts: Sequence[Funds], *, requests: bool = False) -> dict[str, Any]:
    """The plan as `plan --json` prints it. Times are in seconds; what is not known is null."""
    totals, took = found.totals, found.forecast
    summary: dict[str, Any] = {change.value: totals.counts[change] for change in Change}
    summary["credits"] = totals.credits
    summary["usd"] = None if totals.credits is None else usd_text(totals.credits)
    cap = found.max_credits
    return {
        "batch": found.batch,
        "summary": summary,
        "budget": None
        if cap is None
        else {"max": cap, "committed": found.committed, "left": max(0, cap - found.committed)},
        "balance": accounts[0].credits if len(accounts) == 1 else None,
        **({"balances": {a.provider: a.credits for a in accounts}} if len(accounts) > 1 else {}),
        "duration": {
            "low": round(took.low, 1),
            "high": None if took.high is None else round(took.high, 1),
            "unknown": took.unknown,
        },
        "jobs": [_job_json(c, requests, found.waiting.get(c.job)) for c in found.changes],
    }


def _job_json(change: JobChange, requests: bool, waits_for: list[str] | None) -> dict[str, Any]:
    job: dict[str, Any] = {"job": change.job, "change": change.change.value, "credits": change.credits}
    job["usd"] = None if change.credits is None else usd_text(change.credits)
    if requests and change.spec is not None:
        job["request"] = spoken(change.spec.request)
    if change.fields:
        job["fields"] = {f.name: {"from": _told(f.before), "to": _told(f.after)} for f in change.fields}
        if changed := list(dict.fromkeys(parent for f in change.fields for parent in f.parents)):
            job["needs_changed"] = changed
    if change.spec is not None and (needed := needs(change.spec.request)):
        job["needs"] = list(dict.fromkeys(n.job for n in needed))
    if waits_for:
        job["waits_for"] = waits_for
    return job


# --- For people ------------------------------------------------------------------------------------------


def _show(found: Plan) -> None:
    listed = [c for group in ORDER for c in found.changes if c.change is group]
    if listed:
        print_table(("change", "job", "credits", "usd", ""), map(_row, listed[:ROWS]), right=(2, 3))
    if len(listed) > ROWS:
        say(f"... and {number(len(listed) - ROWS)} more; --json lists all")
    if listed:
        say()
    counts = found.totals.counts
    say(f"{found.batch}: " + ", ".join(f"{number(counts[c])} {c.value.replace('_', ' ')}" for c in Change))
    say(f"  a run would cost {money(found.totals.credits)}{_how_long(found.forecast)}")
    if found.max_credits is not None:
        _show_budget(found, found.max_credits)
    for child, parents in list(found.waiting.items())[:NAMED]:
        say(f"  {visible(child)} would wait for {visible(', '.join(parents))}: not selected, and not done")
    if len(found.waiting) > NAMED:
        say(f"  and {number(len(found.waiting) - NAMED)} more would wait for jobs that are not selected")
    failed = sum(c.change is Change.UNCHANGED and c.state is State.FAILED for c in found.changes)
    if failed:
        say(f"  {number(failed)} of the unchanged failed; a run leaves them so: `batchrunner retry {found.batch}`")


def _how_long(took: Forecast) -> str:
    """How long, as far as earlier runs have taught it."""
    if took.high is None:
        return f", and take {span(took.low)} or more" if took.low >= 1.0 else ""
    if took.high < 1.0:
        return ""
    low, high = span(took.low), span(took.high)
    return f", and take about {low}" if low == high else f", and take {low} to {high}"


def _row(change: JobChange) -> tuple[str, ...]:
    credit, usd = ("?", "?") if change.credits is None else (number(change.credits), f"${usd_text(change.credits)}")
    return change.change.value.replace("_", " "), change.job, credit, usd, _detail(change)


def _detail(change: JobChange) -> str:
    if change.fields:
        return ", ".join(map(_changed, change.fields))
    if change.change in (Change.IN_FLIGHT, Change.REMOVED) and change.state is not None:
        return change.state.value
    return ""


def _changed(field: FieldChange) -> str:
    if field.parents:
        return f"needs {', '.join(field.parents)} changed"
    return f"{field.name}: {_value(field.before)} -> {_value(field.after)}"


def _value(value: Any) -> str:
    return "(none)" if value is None else clip(visible(json_text(_told(value), indent=None)), VALUE)


def _told(value: Any) -> Any:
    """A request field's value for people and scripts: a reference as its text."""
    return spoken({"": value})[""]


def _show_budget(found: Plan, cap: int) -> None:
    left = cap - found.committed
    say(f"  budget {money(cap)}, of which {number(max(left, 0))} left before the run")
    if found.totals.credits is not None and found.totals.credits > left:
        warn(f"{found.batch}: the budget ends the run {number(found.totals.credits - left)} credits short of the plan")


def _show_accounts(plans: Sequence[Plan], accounts: Sequence[Funds], *, as_json: bool) -> None:
    """The balance of each account against all plans together, as far as it pays for them."""
    several = len(accounts) > 1
    for account in accounts:
        whose = f" of {account.provider}" if several else ""
        if account.why_not and not (several and not as_json):
            note(f"note: the balance{whose} is not known: {visible(account.why_not)}")
        if not as_json and (several or account.credits is not None):
            known = f"not known: {visible(account.why_not)}" if account.credits is None else money(account.credits)
            say(f"  balance{whose} {known}")
        if account.credits is None:
            continue
        paid = [s.credits or 0 for p in plans for s in p.charged if not several or s.provider == account.provider]
        if sum(paid) > account.credits:
            short = number(sum(paid) - account.credits)
            name = f"the account with {account.provider}" if several else "the account"
            warn(f"{name} has {short} credits less than this costs; a run stops there, with exit code 4")


def providers_of(manifests: Sequence[Manifest]) -> set[str]:
    """The services that jobs of manifests go to."""
    return {name for m in manifests for name in m.providers or {m.provider}}
