"""`status`: how a batch stands, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..core.states import LEFT
from ..core.text import visible
from ..engine.clock import pause, wall
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from ..ledger.sql import Connection
from .ledgers import complete_batches, db_words, no_ledger, reading
from .options import db_option, json_option, ledger_path
from .tables import (
    STATE_COLOURS,
    colours,
    left_text,
    local_time,
    money,
    note,
    number,
    on_terminal,
    print_json,
    say,
    span,
)

WATCH_EVERY = 1.0
"""Seconds between two looks with --watch."""


@click.command(
    epilog="""\b
Examples:
  batchrunner status
  batchrunner status nightly-beach --watch
  batchrunner status nightly-beach --json | jq .states.failed

\b
spent      charged, and won't come back        reserved   running: charged unless it fails
at risk    may have been charged (unconfirmed) estimated  price of all current jobs
service    the limits that runs have met; `limits` in the manifest are upper bounds, a run finds the rest itself
"""
)
@click.argument("batch", required=False, shell_complete=complete_batches)
@click.option("--watch", is_flag=True, help="Refresh every second until the run ends, or Ctrl-C.")
@json_option
@db_option
def status(batch: str | None, watch: bool, as_json: bool, db: Address | None) -> int:
    """Counts by state, and credits spent, reserved and at risk.

    Works beside a run, and shows its ETA while one is alive. Without BATCH: every batch of the ledger.
    """
    if watch and as_json:
        raise UsageError("--watch is for people; with `run --json` a script hears of every event")
    path = ledger_path(db)
    with reading(path) as connection:
        if connection is None:
            if as_json:
                print_json({"batches": []})
            (note if as_json else say)(visible(no_ledger(path)))
            return EXIT_OK
        if watch:
            _watch(lambda: batches_of(connection, batch), path)
            return EXIT_OK
        found = batches_of(connection, batch)
        there = _workers(connection, path)
    if as_json:
        print_json(found[0] if batch is not None else {"batches": found, **({"workers": there} if there else {})})
        return EXIT_OK
    for line in [*lines_of(found, path), *_worker_lines(there)]:
        say(line)
    return EXIT_OK


def batches_of(connection: Connection, batch: str | None) -> list[dict[str, Any]]:
    """The status of one batch, or of all.

    Raises:
        Unknown: there is no such batch.
    """
    from ..ledger import naming, queries
    from ..ledger.workers import with_workers

    if batch is not None:
        naming.find_batch(connection, batch)
    names = [batch] if batch is not None else naming.batch_names(connection)
    found = (queries.status(connection, name, wall()) for name in names)
    return with_workers(connection, [s for s in found if s is not None])


def _workers(connection: Connection, path: Address) -> list[dict[str, Any]]:
    if isinstance(path, Path):
        return []
    from ..ledger.workers import workers

    return workers(connection)


# --- For people ------------------------------------------------------------------------------------------


def lines_of(found: list[dict[str, Any]], path: Address) -> list[str]:
    """What `status` says of batches, a blank line between two."""
    if not found:
        return ["the ledger has no batch yet"]
    db = db_words(path)
    lines: list[str] = []
    for one in found:
        lines += [""] if lines else []
        lines += [
            *_head(one),
            *_money(one["credits"]),
            *_run(one["run"], db),
            *_left_to_workers(one),
            *_service(one.get("learned_limits")),
            *_next(one, db),
        ]
    return lines


def _worker_lines(workers: list[dict[str, Any]]) -> list[str]:
    lines = [""] if workers else []
    several = len({tuple(one["providers"]) for one in workers}) > 1 or any(len(w["providers"]) > 1 for w in workers)
    for one in workers:
        part = "" if one["part"] == "all" else f", {one['part']}s only"
        whose = f" for {visible(', '.join(one['providers']) or 'no service', 100)}" if several else ""
        does = f"{one['in_flight']} in flight, {one['in_hand']} jobs in hand"
        if not one["alive"]:
            does = f"silent for {one['silent_seconds']:.0f} s: taken for dead, the others take up its jobs"
        elif one["stop"]:
            does += f", about to end ({visible(str(one['stop']))})"
        lines.append(f"worker {one['worker']} on {visible(one['host'])} (process {one['pid']}{part}){whose}: {does}")
    return lines


def _head(one: dict[str, Any]) -> list[str]:
    states, jobs = one["states"], one["jobs"]
    wanted = jobs - states["cancelled"]
    done = f"{100 * states['succeeded'] // wanted} % done" if wanted else "all cancelled" if jobs else "no jobs"
    counts = ", ".join(f"{number(n)} {_coloured(state)}" for state, n in states.items() if n)
    lines = [f"{visible(one['batch'])}: {number(jobs)} job{'s' if jobs != 1 else ''}, {done}"]
    if counts:
        lines.append(f"  {counts}")
    if one["old"]:
        old = ", ".join(f"{number(n)} {state}" for state, n in one["old"].items())
        lines.append(f"  not in the manifest any more: {old}")
    return lines


def _coloured(state: str) -> str:
    return click.style(state, fg=STATE_COLOURS[state]) if colours() and state in STATE_COLOURS else state


def _money(credits: dict[str, Any]) -> list[str]:  # noqa: A002
    names = ("spent", "reserved", "at_risk", "estimated")
    shown = [n for n in names if credits[n] or n in ("spent", "estimated")]
    lines = [f"  {name.replace('_', ' '):<10} {money(credits[name])}" for name in shown]
    if credits["max"] is not None:
        left = credits["max"] - credits["spent"] - credits["reserved"] - credits["at_risk"]
        lines.append(f"  {'budget':<10} {money(credits['max'])}, {number(max(0, left))} left")
    return lines


def _run(run: dict[str, Any] | None, db: str) -> list[str]:
    if run is None:
        return []
    if run["alive"]:
        eta = "" if run["eta_seconds"] is None else f", {left_text(run['eta_seconds'], run.get('eta_range'))}"
        pace = "" if not run["per_minute"] else f", {run['per_minute']:.1f} a minute"
        lines = [f"  a run is alive (process {run['pid']}){pace}{eta}"]
        if run.get("in_flight") is not None and run.get("submits_per_minute") is not None:
            held = f", held for {span(run['hold'])}" if run.get("hold") else ""
            lines.append(
                f"  in flight {number(run['in_flight'])} of {number(run['in_flight_limit'])}, submits "
                f"{run['submits_per_minute']:.0f} of {run['submits_per_minute_limit']:,.4g} a minute{held}"
            )
        if run.get("paused_by"):
            lines.append(
                f"  paused by {visible(run['paused_by'], 60)}: `batchrunner continue{db}` lets it submit again"
            )
        return lines
    if run["ended_at"] is None:
        return [f"  the last run, started {local_time(run['started_at'])}, died without a word; run again to continue"]
    why = f", stopped early: {visible(run['stop'])}" if run["stop"] else ""
    return [f"  the last run ended {local_time(run['ended_at'])} with exit code {run['exit_code']}{why}"]


def _left_to_workers(one: dict[str, Any]) -> list[str]:
    """Who left it to workers, and whether there are any."""
    left = one.get("left_to_workers")
    if left is None:
        return []
    lines = [f"  left to workers by {visible(left['by'], 60)}, {local_time(left['at'])}"]
    lines += [f"    {_terms(said)}, by {visible(said['by'], 60)}, {local_time(said['at'])}" for said in left["terms"]]
    if not left["workers"] and any(one["states"][state] for state in LEFT):
        lines.append("  no worker is alive: `batchrunner worker` starts one, on any host")
    elif left["unserved"]:
        names = " and ".join(visible(name, 60) for name in left["unserved"])
        lines.append(f"  no worker that is alive has the key for {names}: `batchrunner worker`, where that is set")
    return lines


def _terms(said: dict[str, Any]) -> str:
    """On what terms it was left to workers."""
    words = [f"--only {visible(one, 60)}" for one in said["only"]] + [f"--tag {visible(t, 60)}" for t in said["tags"]]
    if said["until"] is not None:
        words.append(f"until {local_time(said['until'])}{' (over)' if said['up'] else ''}")
    if said["submissions_left"] is not None:
        words.append(f"{number(said['submissions_left'])} more submissions")
    return ", ".join(words)


def _service(learned: dict[str, Any] | None) -> list[str]:
    """What the service allows, as far as runs have met it."""
    if learned is None:
        return []
    names = (
        ("submits_per_minute", "submissions a minute"),
        ("in_flight", "in flight"),
        ("calls_per_minute", "calls a minute"),
    )
    parts = [f"about {learned[key]:.4g} {words}" for key, words in names if learned[key] is not None]
    return [f"  {'service':<10} {', '.join(parts)} ({local_time(learned['learned_at'])})"]


def _next(one: dict[str, Any], db: str) -> list[str]:
    """What to do now, most urgent first."""
    states, batch = one["states"], visible(one["batch"])
    lines = []
    unconfirmed = states["unconfirmed"] + one["old"].get("unconfirmed", 0)
    if unconfirmed:
        lines.append(
            f"  {number(unconfirmed)} unconfirmed may have been paid for: "
            f"`batchrunner jobs {batch} --state unconfirmed{db}` lists them, then"
        )
        lines.append(f"    `batchrunner resolve JOB --task-id ID | --resubmit | --abandon{db}`")
    alive = _goes_on(one)
    left = sum(states[s] for s in LEFT) + sum(one["old"].get(s, 0) for s in ("running", "downloading"))
    unrecorded = one["unrecorded"]
    if unrecorded and alive:
        lines.append(f"  {number(unrecorded)} more of its manifest are being recorded")
    elif unrecorded:
        lines.append(
            f"  {number(unrecorded)} of its manifest were never recorded, the run was cut short: run the manifest again"
        )
    elif left and not alive:
        waiting = one.get("waiting", 0)
        if waiting:
            lines.append(
                f"  {number(waiting)} wait for the output of others: "
                f"`batchrunner jobs {batch} --state pending{db}` says for what"
            )
        # With failed ones it is they that have to go on first; with workers nobody has to do anything.
        if one.get("left_to_workers") is None and (left > waiting or not states["failed"]):
            lines.append(f"  {number(left)} left: run the manifest again, or `batchrunner resume {batch}{db}`")
    if one.get("media_warnings"):
        lines.append(
            f"  {number(one['media_warnings'])} not as ordered: `batchrunner check {batch}{db}` says what came instead"
        )
    if states["failed"]:
        lines.append(
            f"  {number(states['failed'])} failed: `batchrunner jobs {batch} --state failed{db}` says why, "
            f"`batchrunner retry {batch}{db}` submits again"
        )
    return lines


# --- Watching --------------------------------------------------------------------------------------------


def _watch(look: Callable[[], list[dict[str, Any]]], path: Address) -> None:
    try:
        _watch_live(look, path) if on_terminal() else _watch_lines(look, path)
    except KeyboardInterrupt:
        return


def _alive(found: list[dict[str, Any]]) -> bool:
    return any(map(_goes_on, found))


def _goes_on(one: dict[str, Any]) -> bool:
    """Whether somebody is at work on a batch: a run, or workers."""
    from ..ledger.workers import at_work

    return (one["run"] is not None and one["run"]["alive"]) or at_work(one)


def _watch_live(look: Callable[[], list[dict[str, Any]]], path: Address) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def render(found: list[dict[str, Any]]) -> Text:
        return Text.from_ansi("\n".join(lines_of(found, path)), no_wrap=True, overflow="ellipsis")

    found = look()
    console = Console(highlight=False, markup=False, emoji=False)
    with Live(render(found), console=console, auto_refresh=False) as live:
        while _alive(found):
            pause(WATCH_EVERY)
            found = look()
            live.update(render(found), refresh=True)


def _watch_lines(look: Callable[[], list[dict[str, Any]]], path: Address) -> None:
    """A line each time something has changed; at the end the whole."""
    before: list[str] = []
    while True:
        found = look()
        lines = [_brief(one) for one in found]
        for line in lines:
            if line not in before:
                say(line)
        before = lines
        if not _alive(found):
            break
        pause(WATCH_EVERY)
    for line in lines_of(found, path):
        say(line)


def _brief(one: dict[str, Any]) -> str:
    counts = ", ".join(f"{number(n)} {state}" for state, n in one["states"].items() if n)
    return f"{visible(one['batch'])}: {counts or 'no jobs'}; spent {money(one['credits']['spent'])}"
