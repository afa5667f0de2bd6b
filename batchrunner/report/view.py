"""What stands in the page, above the grid of clips: counts, sentences, charts and commands, for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.figures import counted, dollars, local_time, number, span
from ..core.job import State
from ..core.morning import Entry, Morning
from ..core.promotion import Verdict
from ..core.states import LEFT
from .causes import Cause, ShotCost, causes, shot_costs
from .charts import Chart, latency, timeline
from .clips import Clip
from .commands import Commands, word
from .nights import Night, Spread, nights, spread

LISTED = 50
"""Unconfirmed jobs, and failed ones of a cause, that are written out; a command lists the others."""

SHOTS = 100
"""Shots whose costs are written out."""

SHOWN_NIGHTS = 14
"""Newest nights that are drawn."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the summary."""

    name: str
    figure: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An unconfirmed job: what was seen, and what a person can say."""

    entry: Entry
    sent: str
    seen: str
    risk: int
    ways: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the workers that a batch was left to, in words."""

    host: str
    name: str
    does: str
    jobs: int
    began: str
    seen: str
    end: str


@dataclass(frozen=True, slots=True)
class View:
    """All that the template is given, but for the grid's data."""

    batch: str
    headline: str
    rest: str
    running: str
    tiles: list[Tile]
    doubts: list[Doubt]
    more_doubts: int
    causes: list[Cause]
    failed: int
    charts: list[Chart]
    older_nights: int
    latency: Chart | None
    latency_rows: list[tuple[str, Spread]]
    shots: list[ShotCost]
    more_shots: int
    total: ShotCost
    jobs: int
    problems: int
    unlike: int
    selected: str
    made: str
    ledger: str
    commands: Commands
    resume: str
    approved: int
    promote: str
    states: list[tuple[str, int]]
    old: int
    workers: list[Worker]
    hosts: int
    left_by: str


def view(morning: Morning, clips: Sequence[Sequence[Clip]], commands: Commands, *, selected: str, now: float) -> View:
    """Put it together.

    Args:
        morning: the facts.
        clips: the outputs of each entry.
        commands: for the ledger.
        selected: the options by which jobs were chosen, empty for all.
        now: unix seconds.
    """
    current = [e for e in morning.entries if e.job["current"]]
    states = Counter(State(e.job["state"]) for e in current)
    doubtful = [e for e in morning.entries if e.job["state"] == State.UNCONFIRMED]
    shots, total = shot_costs(morning.entries)
    found = nights(morning.steps, morning.throttled)
    run = morning.status.get("run")
    left = sum(states[s] for s in LEFT)
    by_workers = bool(left and (morning.status.get("left_to_workers") or {}).get("workers"))
    alive = bool(run and run["alive"]) or by_workers
    return View(
        batch=morning.batch,
        headline=_headline(len(current), states, selected=bool(selected)),
        rest=_rest(states, len(doubtful), alive=alive),
        running=_running(run if run and run["alive"] else {}, now) if alive else "",
        tiles=list(_tiles(len(current), states, len(doubtful), total, morning, found)),
        doubts=[_doubt(e, commands) for e in doubtful[:LISTED]],
        more_doubts=max(0, len(doubtful) - LISTED),
        causes=causes(morning.entries),
        failed=states[State.FAILED],
        charts=[timeline(night) for night in found[-SHOWN_NIGHTS:][::-1]],
        older_nights=max(0, len(found) - SHOWN_NIGHTS),
        latency=None if (took := spread(_all_took(morning))) is None else latency(took),
        latency_rows=_by_model(morning),
        shots=shots[:SHOTS],
        more_shots=max(0, len(shots) - SHOTS),
        total=total,
        jobs=len(morning.entries),
        problems=sum(1 for kept in clips for clip in kept if clip.problem),
        unlike=sum(bool((e.job["media"] or {}).get("warnings")) for e in current),
        selected=selected,
        made=local_time(now, "%A %d %B %Y, %H:%M %Z"),
        ledger=str(commands.path),
        commands=commands,
        resume=commands.say("resume", word(morning.batch)) if left and not alive else "",
        approved=sum(e.job["verdict"] == Verdict.APPROVED for e in current),
        promote=commands.say("promote", word(morning.batch), "--profile", "PROFILE", "--dry-run"),
        states=[(s.value, n) for s in State if (n := sum(e.job["state"] == s for e in morning.entries))],
        old=len(morning.entries) - len(current),
        workers=list(map(_worker, morning.workers)),
        hosts=len({one["host"] for one in morning.workers}),
        left_by=_left_by(morning.status),
    )


# --- Workers ---------------------------------------------------------------------------------------------

DOES = {"all": "everything", "submit": "submits and polls", "download": "downloads"}


def _worker(one: dict[str, Any]) -> Worker:
    return Worker(
        host=one["host"],
        name=f"{one['worker']} (process {one['pid']})",
        does=DOES[one["part"]],
        jobs=one["jobs"],
        began=local_time(one["started_at"]),
        seen=local_time(one["last_seen_at"]),
        end=_end_of(one),
    )


def _end_of(one: dict[str, Any]) -> str:
    if one["alive"]:
        return "at work"
    if not one["ended"]:
        return "silent: taken for dead"
    return f"ended with {one['exit_code']}" + (f" ({one['stop']})" if one["stop"] else "")


def _left_by(status: dict[str, Any]) -> str:
    left = status.get("left_to_workers")
    return f"Left to workers by {left['by']}, {local_time(left['at'])}." if left else ""


# --- Summary ---------------------------------------------------------------------------------------------


def _headline(jobs: int, states: Counter[State], *, selected: bool) -> str:
    """The night in one sentence."""
    if not jobs:
        return "No job was selected." if selected else "This batch has no jobs."
    there = states[State.SUCCEEDED]
    if jobs == 1:
        return "The clip is here." if there else "The clip is not here."
    if there == jobs:
        return f"All {number(jobs)} clips are here."
    return f"{number(there)} of {counted(jobs, 'clip')} {'is' if there == 1 else 'are'} here."


def _rest(states: Counter[State], doubtful: int, *, alive: bool) -> str:
    """What became of the others; empty where there are none."""
    rest = []
    if doubtful:
        rest.append(f"{number(doubtful)} may have been paid for and need{'s' if doubtful == 1 else ''} your word")
    if states[State.FAILED]:
        rest.append(f"{number(states[State.FAILED])} failed")
    left = sum(states[s] for s in LEFT)
    if left:
        rest.append(f"{number(left)} {'under way or waiting' if alive else 'still to be done'}")
    if states[State.CANCELLED]:
        rest.append(f"{number(states[State.CANCELLED])} cancelled")
    return f"{', '.join(rest)}." if rest else ""


def _running(run: dict[str, Any], now: float) -> str:
    eta = run.get("eta_seconds")
    ends = "" if eta is None else f", with about {span(eta)} to go"
    who = "A run was" if run else "Workers were"
    return f"{who} alive when this page was made, at {local_time(now, '%H:%M')}{ends}. Make the page anew later."


def _tiles(
    jobs: int, states: Counter[State], doubtful: int, total: ShotCost, morning: Morning, found: list[Night]
) -> Iterator[Tile]:
    there = states[State.SUCCEEDED]
    share = f"of {number(jobs)}, {100 * there // jobs} %" if jobs else ""
    yield Tile("Clips", number(there), share, "ok" if jobs and there == jobs else "")
    if doubtful:
        yield Tile("Unconfirmed", number(doubtful), "see below", "warn")
    if states[State.FAILED]:
        yield Tile("Failed", number(states[State.FAILED]), "grouped below", "bad")
    left = sum(states[s] for s in LEFT)
    if left:
        flying = states[State.SUBMITTING] + states[State.RUNNING]
        yield Tile("Left", number(left), f"{number(flying)} in flight" if flying else "nothing in flight")
    unsettled = f", {dollars(total.open)} not settled" if total.open else ""
    yield Tile("Spent", dollars(total.spent), f"{number(total.spent)} credits{unsettled}")
    yield Tile("Estimated", dollars(total.estimated), _estimate_note(total, morning))
    if found:
        last = found[-1]
        when = f"{local_time(last.start, '%a %H:%M')} to {local_time(last.end, '%H:%M')}"
        yield Tile("Night", span(last.end - last.start), when)


def _estimate_note(total: ShotCost, morning: Morning) -> str:
    if total.unpriced:
        return f"{counted(total.unpriced, 'job')} without a known price"
    cap = morning.status["credits"]["max"]
    return f"budget {dollars(cap)}" if cap is not None else f"{number(total.estimated)} credits"


def _doubt(entry: Entry, commands: Commands) -> Doubt:
    last = entry.attempts[-1]
    error = entry.job["error"]
    code = "" if error["code"] is None else f" ({error['code']})"
    upto = "" if last.answered_at is None else f" to {local_time(last.answered_at, '%H:%M:%S')}"
    return Doubt(
        entry, local_time(last.sent_at) + upto, f"{error['message']}{code}", last.credits, commands.resolve(entry)
    )


def _all_took(morning: Morning) -> list[float]:
    return [a.took for e in morning.entries for a in e.attempts if a.took is not None]


def _by_model(morning: Morning) -> list[tuple[str, Spread]]:
    took: dict[str, list[float]] = {}
    for entry in morning.entries:
        seconds = [a.took for a in entry.attempts if a.took is not None]
        took.setdefault(entry.job["model"], []).extend(seconds)
    return [(model, found) for model, seconds in sorted(took.items()) if (found := spread(seconds)) is not None]
