"""Telling others how a run ended, and writing it down: what `run` and `resume` do around the run itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import app
from ..core.notice import Notice, Outcome, Sink, is_kept
from ..core.text import visible
from ..environment import secrets, traces_wanted
from ..exits import (
    EXIT_BUG,
    EXIT_BUSY,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EXIT_STOPPED,
    EXIT_UNCONFIRMED,
    EXIT_USAGE,
    UsageError,
)
from ..ledger.address import Address
from ..ledger.errors import LedgerBusy, LedgerError
from .tables import money, number, warn

if TYPE_CHECKING:
    from ..runlog import RunLog

OUTCOMES = {
    EXIT_OK: Outcome.SUCCEEDED,
    EXIT_FAILED: Outcome.FAILED,
    EXIT_UNCONFIRMED: Outcome.UNCONFIRMED,
    EXIT_STOPPED: Outcome.STOPPED,
    EXIT_REFUSED: Outcome.REFUSED,
    EXIT_SIGINT: Outcome.INTERRUPTED,
    EXIT_SIGTERM: Outcome.INTERRUPTED,
    EXIT_BUSY: Outcome.BUSY,
}
WORDS = {
    Outcome.SUCCEEDED: "done",
    Outcome.FAILED: "done, some failed",
    Outcome.UNCONFIRMED: "a person must look",
    Outcome.STOPPED: "stopped early",
    Outcome.REFUSED: "no connection, or the key was refused",
    Outcome.INTERRUPTED: "interrupted",
}


@contextmanager
def logging(watcher: app.Watcher, path: Path | None, level: str) -> Iterator[RunLog]:
    """What the watcher is told, in a log file too, where one is named.

    Raises:
        UsageError: the file can't be written.
    """
    from ..runlog import Level, LogFile, RunLog

    log = RunLog(watcher, None if path is None else LogFile(path), Level[level.upper()], secrets())
    try:
        yield log
    finally:
        dropped = log.close()
        if dropped:
            warn(f"{number(dropped)} lines could not be written to the log {visible(str(path))}")


def tracing(watcher: app.Watcher) -> AbstractContextManager[app.Watcher]:
    """What the watcher is told, as OpenTelemetry traces too, where the environment asks for them."""
    try:
        if not traces_wanted():
            return nullcontext(watcher)
        from .. import traces
    except UsageError as why:
        warn(str(why))
    except ImportError:
        warn("an OTEL_ variable asks for traces, which take: pip install 'batchrunner[otel]'")
    else:
        return traces.tracing(watcher, warn, secrets())
    return nullcontext(watcher)


class Teller:
    """Tells the sinks of the batches, and of the file that BATCHRUNNER_NOTIFY names, how a run ended."""

    def __init__(self, db: Address, *, simulated: bool, elsewhere: bool = False) -> None:
        """
        Args:
            db: the ledger.
            simulated: it is a rehearsal.
            elsewhere: workers will tell of the end, in their own environment.

        Raises:
            ManifestError: that file is not valid.
        """
        self._sinks: dict[Sink, None] = {}
        self._names = "batchrunner"
        self._db = db
        self._simulated = simulated
        self._elsewhere = elsewhere
        file = os.environ.get("BATCHRUNNER_NOTIFY")
        if file:
            from ..manifest import load_notices

            self._add(load_notices(file, secrets=secrets()))

    def of(self, batches: Iterable[tuple[str, Sequence[Sink]]]) -> None:
        """What the run is about is known: batches, and whom each wants to be told."""
        names = []
        for name, sinks in batches:
            self._add(sinks)
            names.append(name)
        self._names = ", ".join(names) or self._names

    def _add(self, sinks: Sequence[Sink]) -> None:
        new = [sink for sink in sinks if sink not in self._sinks]
        self._sinks |= dict.fromkeys(new)
        for problem in app.cannot_tell(new) if new and not self._elsewhere else ():
            warn(f"at its end nobody will be told: {visible(problem)}")

    @contextmanager
    def of_errors(self, log: RunLog | None = None) -> Iterator[None]:
        """Tell of an error that ends the run before it has a result; what is wrong with the command line itself is
        for whoever has typed it."""
        try:
            yield
        except click.ClickException:
            raise
        except Exception as error:
            outcome, code, text = _of_error(error)
            if log is not None:
                log.note("bug" if code == EXIT_BUG else "refused_to_run", exit_code=code, message=text)
            self._tell(Notice(outcome, code, self._title(visible(text, 200))), log)
            raise

    def of_result(self, result: app.RunResult, log: RunLog) -> None:
        """Tell how a run ended. Of what workers do they tell; here only at addresses that the ledger does not keep."""
        log.ended(result)
        if result.told_by_workers:
            self._sinks = dict.fromkeys(sink for sink in self._sinks if not sink.trusted and not is_kept(sink))
        if self._sinks and result.message == app.LEFT_TO_WORKERS:
            warn("at its end nobody will be told at a url that stands in the manifest: workers know it only by url_env")
        elif self._sinks:
            self._tell(words_of(self._names, result, self._db, simulated=self._simulated), log)

    def _title(self, text: str) -> str:
        return _title(self._names, text, simulated=self._simulated)

    def _tell(self, notice: Notice, log: RunLog | None) -> None:
        if not self._sinks:
            return
        for failure in app.tell(list(self._sinks), notice):
            warn(f"not told: {visible(failure, 300)}")
            if log is not None:
                log.note("notify_failed", message=failure)


def own_sinks(db: Address) -> tuple[Sink, ...]:
    """Those of the file that BATCHRUNNER_NOTIFY names. Raises ManifestError: it is not valid."""
    return tuple(Teller(db, simulated=False)._sinks)


def words_of(names: str, result: app.RunResult, db: Address, *, simulated: bool = False) -> Notice:
    """What there is to say of how batches ended.

    Args:
        names: what to call them.
        result: how.
        db: the ledger, for the commands that are suggested.
        simulated: it was a rehearsal.
    """
    import socket

    from .display import summary_lines

    outcome = OUTCOMES.get(result.exit_code, Outcome.ERROR)
    facts = {
        "batches": result.batches,
        "stop": result.stop.value if result.stop else None,
        "message": result.message,
        "simulated": simulated,
        "host": socket.gethostname(),
    }
    lines = [click.unstyle(line) for line in summary_lines(result, db)]
    title = _title(names, _headline(outcome, result), simulated=simulated)
    return Notice(outcome, result.exit_code, title, lines, facts)


def _title(names: str, text: str, *, simulated: bool) -> str:
    return f"{'(simulated) ' if simulated else ''}{visible(names, 100)}: {text}"


def _headline(outcome: Outcome, result: app.RunResult) -> str:
    """How it ended, in one line: `stopped early (deadline): 40 succeeded, 3 pending; spent 25,200 credits ($25.20)`."""
    states: Counter[str] = Counter()
    for batch in result.batches:
        states.update({state: n for state, n in batch["states"].items() if n})
    counts = ", ".join(f"{number(n)} {state}" for state, n in states.items()) or "no jobs"
    spent = money(sum(batch["credits"]["spent"] for batch in result.batches))
    reason = f" ({result.stop.value})" if result.stop else ""
    return f"{WORDS.get(outcome, outcome.value)}{reason}: {counts}; spent {spent}"


def _of_error(error: Exception) -> tuple[Outcome, int, str]:
    from ..manifest import ManifestError

    if isinstance(error, LedgerBusy):
        return Outcome.BUSY, EXIT_BUSY, str(error)
    if isinstance(error, (UsageError, LedgerError, ManifestError)):
        return Outcome.ERROR, EXIT_USAGE, str(error).partition("\n")[0]
    return Outcome.ERROR, EXIT_BUG, f"a bug in batchrunner ({type(error).__name__})"
