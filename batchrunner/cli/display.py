"""What a run shows: bars on a terminal, a line at a time without one, NDJSON for scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from ..app import RunResult, Watcher
from ..core.job import Job, State
from ..core.text import visible
from ..ledger.address import Address
from .tables import echo_bytes, json_text, left_text, money, number, warn

if TYPE_CHECKING:
    from ..engine.ports import Tally

ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNCONFIRMED)
REPORT_EVERY = 30.0
"""Seconds between two progress lines without a terminal."""


class Display(Watcher):
    """A watcher that is opened before a run, and says at its end how it went."""

    db: Address = Path()
    """The ledger, for the commands that the summary suggests."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take what moves off the terminal."""

    def summary(self, result: RunResult) -> None:
        """Say how the run ended."""
        self.close()
        for line in summary_lines(result, self.db):
            click.echo(line)


def summary_lines(result: RunResult, db: Address) -> list[str]:
    """The end of a run, for people: what there is, what it cost, where the files are, what to do next."""
    from .status import lines_of

    if not result.batches and result.stop is None:
        return ["nothing to do: the ledger has no batch"]
    lines: list[str] = []
    for batch in result.batches:
        lines += lines_of([{**batch, "run": None}], db)
        if batch["states"]["succeeded"]:
            lines.append(f"  files in {visible(batch['output_dir'])}")
    if result.stop is not None:
        lines.append(f"stopped early ({result.stop.value}): {visible(result.message)}")
    return lines


class QuietDisplay(Display):
    """Nothing but the summary, and what must not be missed."""

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if name == "unrecorded" and job is not None:
            click.echo(f"UNRECORDED {job.key} is task {data['task_id']}: keep this line", err=True)
        if name == "not_served":
            provider = visible(data["provider"], 60)
            warn(f"jobs of {provider} are left to workers that have its key: this one has none, or was told not to")
        for failure in data.get("not_told", ()):
            warn(f"not told: {visible(failure, 300)}")


class LineDisplay(QuietDisplay):
    """A line at a time: for cron, systemd and pipes."""

    def __init__(self) -> None:
        self._tally: Tally | None = None
        self._reported = time.monotonic()  # noqa: TID251  a display reads the time of those who watch

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        self._tally = tally
        click.echo(f"{', '.join(batches)}: {counts_text(tally)}")

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        super().event(name, job, **data)
        line = event_line(name, job, data)
        if line is not None:
            click.echo(line)
        elif name == "progress" and self._tally is not None:
            now = time.monotonic()  # noqa: TID251
            if now - self._reported >= REPORT_EVERY:
                self._reported = now
                click.echo(f"{counts_text(self._tally)}; {rate_text(data)}; {money_text(data['credits'])}")


class JsonDisplay(QuietDisplay):
    """NDJSON events on stdout; the last line is the summary."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:  # noqa: TID251
        self._clock = clock

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        self._print("run_started", batches=list(batches), states={s.value: n for s, n in tally.states.items() if n})

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        super().event(name, job, **data)
        if job is not None:
            data = {"job": job.key, **data}
        self._print(name, **data)

    def summary(self, result: RunResult) -> None:
        one = result.batches[0] if len(result.batches) == 1 else {"batches": result.batches}
        stop = result.stop.value if result.stop else None
        self._print("summary", **one, exit_code=result.exit_code, stop=stop, message=result.message)

    def _print(self, event: str, **data: Any) -> None:
        echo_bytes(json_text({"ts": round(self._clock(), 3), "event": event, **data}, indent=None))


def counts_text(tally: Tally, *, short: bool = False) -> str:
    """`12 running, 3 succeeded`, in the order of the states."""
    shown = [s for s in State if tally.states.get(s)]
    if short:
        return " ".join(f"{tally.states[s]} {s.value}" for s in shown)
    return ", ".join(f"{tally.states[s]} {s.value}" for s in shown) or "no jobs"


def rate_text(progress: dict[str, Any]) -> str:
    """In flight against the limit, jobs a minute, time left."""
    parts = [f"{progress['in_flight']}/{progress['in_flight_limit']} in flight"]
    if progress["hold"]:
        parts.append(f"held {progress['hold']:.0f} s")
    if progress.get("paused_by"):
        parts.append(f"paused by {visible(progress['paused_by'], 60)}")
    if progress["per_minute"]:
        parts.append(f"{progress['per_minute']:g}/min")
    if progress["eta_seconds"]:
        parts.append(left_text(progress["eta_seconds"], progress.get("eta_range")))
    return ", ".join(parts)


def money_text(credits_: dict[str, int]) -> str:
    """Credits spent, and those that are reserved or at risk, where there are any."""
    parts = [f"spent {money(credits_['spent'])}"]
    parts += [f"{number(credits_[k])} {k.replace('_', ' ')}" for k in ("reserved", "at_risk") if credits_[k]]
    return ", ".join(parts)


def event_line(name: str, job: Job | None, data: dict[str, Any]) -> str | None:  # noqa: C901  a table of lines
    """One line for people about an event; None for events that are not worth one."""
    error = data.get("error") or {}
    told = visible(str(error.get("message", "")), 200)
    key = visible(job.key) if job is not None else ""
    match name:
        case "stored":
            return f"{key}: succeeded{_came(data)}"
        case "taskfailed" | "rejected" | "vanished" | "linkdied" if data.get("state") == "failed":
            return f"{key}: failed: {told}" + _code(error)
        case "taskfailed":
            return f"{key}: failed and refunded, will be submitted again: {told}" + _code(error)
        case "linkdied":
            return f"{key}: the output's address is dead, asking for a fresh one: {told}"
        case "ambiguous":
            return f"{key}: UNCONFIRMED, may have been paid for: {told}" + _code(error)
        case "held":
            return f"{key}: waits, the output of {visible(str(data['needs']))} can't be had: {told}"
        case "hold":
            return f"the service asks to slow down: every call waits {data['seconds']:.0f} s"
        case "limits":
            return (
                f"the service allows less than the manifest: going on with {data['in_flight_limit']} in flight, "
                f"{data['submits_per_minute_limit']:g} submissions a minute"
            )
        case "unknown_status":
            return f"{key}: the service says {visible(str(data['status']), 60)!r}; taken as still running"
        case "output_renamed":
            return f"{key}: {visible(data['wanted'])} appeared meanwhile; saved as {visible(data['output'])}"
        case "left_behind":
            return f"{key}: could not be brought home now, will be next time: {told}"
        case "grace_over":
            return f"long after the deadline: {data['tasks'] + data['downloads']} in flight are left to the next run"
        case "stopping":
            return f"no more submissions ({data['reason']}): {visible(data['message'], 300)}"
        case _:
            return _told_line(name, key, data)


def _told_line(name: str, key: str, data: dict[str, Any]) -> str | None:
    """The same for what a person has said from another terminal (`remote`)."""
    who = visible(str(data.get("who", "")), 60)
    match name:
        case "batch_ended":
            return str(data["title"])
        case "withdrawn":
            return f"{key}: cancelled"
        case "paused":
            return f"paused by {who}: nothing more is submitted until `batchrunner continue`"
        case "continued":
            return f"{who} lets the run go on"
        case "limits_set":
            flight, rate = data["in_flight_bound"], data["submits_per_minute_bound"]
            polls = f"{data['polls_per_minute_bound']:,.10g} polls a minute"
            return f"{who} sets the limits to {flight} in flight, {rate:g} submissions and {polls}"
        case "remote_closed":
            return f"pause, continue, limits and cancel can't reach this run: {visible(data['message'], 200)}"
        case _:
            return None


def _came(data: dict[str, Any]) -> str:
    """How many files came, where there are several, and where they are not what was ordered."""
    several = f", {len(data['outputs'])} files" if data.get("outputs") else ""
    warnings = visible("; ".join(data.get("warnings") or ()), 300)
    return several + (f", BUT {warnings}" if warnings else "")


def _code(error: dict[str, Any]) -> str:
    parts = [f"code {error['code']}"] if error.get("code") is not None else []
    parts += [f"request {error['request_id']}"] if error.get("request_id") else []
    return f" ({visible(', '.join(parts), 120)})" if parts else ""


def watcher_for(db: Address, *, as_json: bool, quiet: bool, board: bool = True) -> Display:
    """The display that fits where stdout goes."""
    display: Display
    if as_json:
        display = JsonDisplay()
    elif quiet:
        display = QuietDisplay()
    else:
        display = _board() if board and sys.stdout.isatty() else LineDisplay()
    display.db = db
    return display


def _board() -> Display:
    from .board import BoardDisplay

    return BoardDisplay()
