"""What every benchmark needs: a child that is measured, contenders in turn, medians, the double, a result."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "benchmarks" / "launch.py"
MOST_SECONDS = 900.0
"""After this long a measured process is killed: a benchmark ends by itself."""


class Failed(Exception):
    """A measured process did not do its work; the message ends with its last lines."""


class Unavailable(Exception):
    """What a contender needs is not on this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process from its start to its end.

    Attributes:
        wall, cpu: seconds; cpu is of the process and the children it waited for.
        rss: peak resident memory of the largest of them, MB (10^6 bytes).
        code: its exit code.
        began: when it was started, CLOCK_MONOTONIC seconds, as the double's times are.
        output: the last of what it printed.
        told: what the double counted meanwhile, where one was used.
    """

    wall: float
    cpu: float
    rss: float
    code: int
    began: float
    output: str
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def span(self) -> float:
        """Seconds from its first POST to its last call."""
        return float(self.told["last_call"] - self.told["first_post"])


def measure(
    command: Sequence[object],
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    codes: Sequence[int] = (0,),
    most: float = MOST_SECONDS,
    interrupt_after: float | None = None,
    watch: Callable[[int, float], None] | None = None,
    keep: bool = False,
    double: Double | None = None,
) -> Run:
    """Run a command to its end.

    Args:
        command, folder, env: what, where, with which environment.
        codes: exit codes that are no failure.
        most: seconds until it is killed.
        interrupt_after: seconds until it gets a Ctrl-C.
        watch: called twice a second with its pid and the time.
        keep: all of what it prints, not only the end.
        double: forgets its counts before, and is asked for them afterwards.
    """
    if double is not None:
        double.mark()
    timers = [(most, signal.SIGKILL)] + ([(interrupt_after, signal.SIGINT)] if interrupt_after is not None else [])
    with tempfile.TemporaryDirectory(prefix="measure-") as name:
        out, err, result = (Path(name) / each for each in ("out", "err", "result"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(result), *map(str, command)]
            child = subprocess.Popen(
                launcher,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        _wait(child, timers, watch)
        if not result.exists():
            raise Failed(f"{_words(command)} was killed after {most:g} s, or could not be started:\n{_end(err)}")
        found = json.loads(result.read_text())
        output = out.read_text() if keep else _end(out)
        if found["code"] not in codes:
            raise Failed(f"{_words(command)} ended with {found['code']}:\n{_end(err) or output}")
    return Run(**found, output=output, told=double.told() if double is not None else {})


def _wait(
    child: subprocess.Popen[bytes],
    timers: Sequence[tuple[float, signal.Signals]],
    watch: Callable[[int, float], None] | None,
) -> None:
    waiting = [threading.Timer(after, _signal, (child.pid, number)) for after, number in timers]
    for timer in waiting:
        timer.start()
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(child.pid, watch, over)) if watch is not None else None
    try:
        if watcher is not None:
            watcher.start()
        child.wait()
    except BaseException:
        _signal(child.pid, signal.SIGKILL)
        raise
    finally:
        over.set()
        for timer in waiting:
            timer.cancel()
        if watcher is not None:
            watcher.join()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(group, number)


def _watch(launcher: int, watch: Callable[[int, float], None], over: threading.Event) -> None:
    while not over.wait(0.5):
        children = Path(f"/proc/{launcher}/task/{launcher}/children")
        with suppress(OSError):  # it has just ended
            watch(int(children.read_text().split()[0]), time.monotonic())


def _end(path: Path) -> str:
    """The last lines: a command may have printed a million."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        return file.read().decode(errors="replace")


def _words(command: Sequence[object]) -> str:
    return " ".join(map(str, command))


class Double:
    """The provider in its own process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def reset(self, **settings: Any) -> None:
        self._call("reset", settings)

    def mark(self) -> None:
        self._call("mark", {})

    def told(self) -> dict[str, Any]:
        return self._call("counts", {})

    def _call(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_double/{name}", json.dumps(settings).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    @classmethod
    @contextmanager
    def started(cls, **settings: Any) -> Iterator[Double]:
        """A double that ends with the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.provider_double"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise Failed("the provider double did not start")
            double = cls(process, url)
            double.reset(**settings)
            yield double
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True, slots=True)
class Context:
    """How to measure.

    Attributes:
        folder: scratch, on the disk that is measured.
        quick: smaller numbers and fewer rounds: whether it works, not how fast it is.
        rounds: times that each contender runs, in turn with the others.
        python, tree: whose batchrunner is measured.
        peers: whether to run the peers too.
    """

    folder: Path
    quick: bool = False
    rounds: int = 3
    python: str = sys.executable
    tree: Path = ROOT
    peers: bool = True

    def batchrunner(self, *arguments: object) -> list[str]:
        """The command line of the tree that is measured."""
        return [self.python, "-m", "batchrunner", *map(str, arguments)]

    def env(self, double: Double | None = None) -> dict[str, str]:
        """For every measured process: this tree's modules first, the double as the provider, no settings of ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("REAPI_", "BATCHRUNNER_", "PYTHON"))}
        kept["PYTHONPATH"] = str(self.tree)
        if double is not None:
            kept |= {"REAPI_BASE_URL": double.url, "REAPI_API_KEY": "rk_benchmark"}
        return kept

    def peer_env(self, double: Double | None = None) -> dict[str, str]:
        """For the peers: the benchmarks of this tree, whatever batchrunner is measured."""
        return self.env(double) | {"PYTHONPATH": str(ROOT)}

    def room(self, name: str) -> Path:
        """A folder of its own in the scratch folder."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def pick(self, full: T, quick: T) -> T:
        return quick if self.quick else full


def alternate(contenders: Mapping[str, Callable[[int], Run]], rounds: int) -> dict[str, list[Run]]:
    """Each contender once a round, beginning with another one each time, so that what the machine does meanwhile meets
    all of them."""
    names = list(contenders)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            runs[name].append(contenders[name](number))
    return runs


def median(runs: Sequence[Run], of: str) -> float:
    """Median of an attribute (`wall`, `cpu`, `rss`, `span`)."""
    return statistics.median(float(getattr(run, of)) for run in runs)


def ratio(ours: Sequence[Run], theirs: Sequence[Run], of: str) -> float:
    """Median over the rounds of theirs / ours, each within its own round: above 1 we need less."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(float(getattr(b, of)) / float(getattr(a, of)) for a, b in pairs)


def own_share(runs: Sequence[Run]) -> float:
    """The largest share of a core that the double used while somebody was talking to it."""
    return max((run.told["cpu"] / max(run.span, 1e-9) for run in runs if run.told.get("posts")), default=0.0)


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against its target. `met` is None where there is no target, or it could not be measured."""

    what: str
    measured: str
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Result:
    """What one target's program found.

    Attributes:
        number, title: as in the list of targets.
        checks: one line of the summary each.
        table: rows of the details, the first is the head.
        notes: how it was measured, what is left out.
        data: all of it, for programs.
    """

    number: str
    title: str
    checks: list[Check] = field(default_factory=list)
    table: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, value: float, text: str, target: str, met: bool) -> None:
        self.checks.append(Check(what, text, target, met))
        self.data[what] = {"value": value, "target": target, "met": met}

    def at_least(self, what: str, value: float, bound: float, unit: str = "") -> None:
        self.check(what, value, f"{value:.3g}{unit}", f">= {bound:g}{unit}", value >= bound)

    def at_most(self, what: str, value: float, bound: float, unit: str = "") -> None:
        self.check(what, value, f"{value:.3g}{unit}", f"<= {bound:g}{unit}", value <= bound)

    def markdown(self) -> str:
        lines = [f"### {self.number}. {self.title}", ""]
        if self.table:
            lines += _rows(self.table)
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def _rows(table: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = table
    return [_row(head), "|" + "---|" * len(head), *map(_row, rest), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def summary(results: Sequence[Result]) -> str:
    """The one table."""
    rows: list[Sequence[str]] = [("#", "what", "measured", "target", "met")]
    for result in results:
        for check in result.checks:
            met = {True: "yes", False: "**no**", None: ""}[check.met]
            rows.append((result.number, check.what, check.measured, check.target, met))
    return "\n".join(_rows(rows))
