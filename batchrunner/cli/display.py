"""What a run shows: bars on a terminal, a line at a time without one, NDJSON for scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from ..app import RunResult, Watcher
from ..core.job import Job, State
from ..core.pricing import usd_text
from ..core.text import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..engine.ports import Tally

QUIET_EVENTS = frozenset({"progress", "claimed", "stopping"})
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNCONFIRMED)
REPORT_EVERY = 30.0
"""Seconds between two progress lines without a terminal."""

ADVICE = {
    "unconfirmed": "may have been paid for: `batchrunner jobs {batch} --state unconfirmed`, then "
    "`batchrunner resolve JOB --task-id ID | --resubmit | --abandon`",
    "failed": "`batchrunner jobs {batch} --state failed` says why; `batchrunner retry {batch}` submits again",
    "left": "run the same command again to continue",
}


class Display(Watcher):
    """A watcher that is opened before a run, and says at its end how it went."""

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
        for line in summary_lines(result):
            click.echo(line)


def summary_lines(result: RunResult) -> list[str]:
    """The end of a run, for people: what there is, what it cost, what to do next."""
    if not result.batches:
        return ["nothing to do: the ledger has no batch"]
    lines = []
    for batch in result.batches:
        states, credits = batch["states"], batch["credits"]
        counts = ", ".join(f"{n} {state}" for state, n in states.items() if n) or "no jobs"
        lines.append(f"{batch['batch']}: {counts}")
        money = [f"spent {credits['spent']} credits (${usd_text(credits['spent'])})"]
        money += [f"{name.replace('_', ' ')} {credits[name]}" for name in ("reserved", "at_risk") if credits[name]]
        if credits["max"] is not None:
            money.append(f"budget {credits['max']}")
        lines.append("  " + ", ".join(money))
        if states["succeeded"]:
            lines.append(f"  files in {visible(batch['output_dir'])}")
        if states["unconfirmed"] or batch["old"].get("unconfirmed"):
            number = states["unconfirmed"] + batch["old"].get("unconfirmed", 0)
            lines.append(f"  {number} unconfirmed " + ADVICE["unconfirmed"].format(batch=batch["batch"]))
        if states["failed"]:
            lines.append(f"  {states['failed']} failed: " + ADVICE["failed"].format(batch=batch["batch"]))
        left = sum(states[s] for s in ("pending", "submitting", "running", "downloading"))
        if left:
            lines.append(f"  {left} left: " + ADVICE["left"])
    if result.stop is not None:
        lines.append(f"stopped early ({result.stop.value}): {visible(result.message)}")
    return lines


class QuietDisplay(Display):
    """Nothing but the summary, and what must not be missed."""

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if name == "unrecorded" and job is not None:
            click.echo(f"UNRECORDED {job.key} is task {data['task_id']}: keep this line", err=True)


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
                click.echo(f"{counts_text(self._tally)}; {rate_text(data)}")


class BarDisplay(LineDisplay):
    """A bar and the counts on a terminal, the last notable lines scrolling above it."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._tally = tally
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=Console(),
            expand=True,
            refresh_per_second=4,
        )
        self._progress.start()
        self._task = self._progress.add_task(", ".join(batches)[:30], total=sum(tally.states.values()), facts="")

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        QuietDisplay.event(self, name, job, **data)
        if self._progress is None or self._task is None or self._tally is None:
            return
        line = event_line(name, job, data) if name != "stored" else None
        if line is not None:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        done = sum(self._tally.states.get(s, 0) for s in ENDED)
        if name == "progress":
            facts = f"{counts_text(self._tally, short=True)}  {rate_text(data)}"
            self._progress.update(self._task, completed=done, facts=facts)
        else:
            self._progress.update(self._task, completed=done)

    def close(self) -> None:
        if self._progress is not None and self._task is not None and self._tally is not None:
            done = sum(self._tally.states.get(s, 0) for s in ENDED)
            self._progress.update(self._task, completed=done, facts=counts_text(self._tally, short=True))
            self._progress.stop()
            self._progress = None


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
        click.echo(json.dumps({"ts": round(self._clock(), 3), "event": event, **data}, ensure_ascii=False))


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
    if progress["per_minute"]:
        parts.append(f"{progress['per_minute']:g}/min")
    if progress["eta_seconds"]:
        parts.append(f"about {duration_text(progress['eta_seconds'])} left")
    return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """`42 s`, `7 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def event_line(name: str, job: Job | None, data: dict[str, Any]) -> str | None:
    """One line for people about an event; None for events that are not worth one."""
    if name in QUIET_EVENTS and name != "stopping":
        return None
    error = data.get("error") or {}
    told = visible(str(error.get("message", "")), 200)
    key = visible(job.key) if job is not None else ""
    match name:
        case "stored":
            return f"{key}: succeeded"
        case "taskfailed" | "rejected" | "vanished" | "linkdied" if data.get("state") == "failed":
            return f"{key}: failed: {told}" + _code(error)
        case "taskfailed":
            return f"{key}: failed and refunded, will be submitted again: {told}" + _code(error)
        case "linkdied":
            return f"{key}: the output's address is dead, asking for a fresh one: {told}"
        case "ambiguous":
            return f"{key}: UNCONFIRMED, may have been paid for: {told}" + _code(error)
        case "hold":
            return f"the service asks to slow down: every call waits {data['seconds']:.0f} s"
        case "unknown_status":
            return f"{key}: the service says {visible(str(data['status']), 60)!r}; taken as still running"
        case "output_renamed":
            return f"{key}: {visible(data['wanted'])} appeared meanwhile; saved as {visible(data['output'])}"
        case "left_behind":
            return f"{key}: could not be downloaded now, will be next time: {told}"
        case "stopping":
            return f"no more submissions ({data['reason']}): {visible(data['message'], 300)}"
        case _:
            return None


def _code(error: dict[str, Any]) -> str:
    parts = [f"code {error['code']}"] if error.get("code") is not None else []
    parts += [f"request {error['request_id']}"] if error.get("request_id") else []
    return f" ({visible(', '.join(parts), 120)})" if parts else ""


def watcher_for(*, as_json: bool, quiet: bool) -> Display:
    """The display that fits where stdout goes."""
    if as_json:
        return JsonDisplay()
    if quiet:
        return QuietDisplay()
    return BarDisplay() if sys.stdout.isatty() else LineDisplay()
