"""One place and one account, and the runs that die there: played step by step, judged after each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

from tests.crash.checks import (
    Books,
    check_answered,
    check_end,
    check_not_again,
    check_now,
    check_recorded,
    check_said,
    check_whole,
    finished,
)
from tests.crash.child import Order
from tests.crash.faults import FAULTS
from tests.crash.processes import Ran
from tests.crash.provider import Rewinding
from tests.crash.scenarios import FULL, RUNS, Scenario, Step
from tests.crash.workspace import Workspace

MOST_FINALS = 4
ENDS = frozenset({0, 1, 3})
"""Exit codes after which another run would find nothing to do."""

Playing = Generator[Order, Ran, Ran]


class Tale:
    """Attributes:
    steps: what was played so far, since the beginning.
    wrong: (scenario, what is wrong).
    new: what is played now is played nowhere else.
    """

    def __init__(
        self, double: Rewinding, home: Path, name: str, fault: str, ended: Callable[[Scenario, Ran, bool], None]
    ) -> None:
        """Args:
        double: its provider.
        home: where folders may be made.
        name: nobody else's.
        fault: a name in FAULTS.
        ended: is told of every run, with all that led to it.
        """
        self._ended = ended
        self.fault = fault
        self.steps: list[Step] = []
        self.wrong: dict[tuple[str, str], None] = {}
        self.new = True
        self._double = double
        self._name = name
        self._folder, self._copy, self._looks = (home / f"{name}{suffix}" for suffix in ("", ".saved", ".looks"))
        self._folder.mkdir()
        self._space = Workspace(self._folder, double.open(name, FAULTS[fault].plan), FAULTS[fault])
        self._posts = self._words = 0
        self._home: dict[tuple[str, str], int] = {}
        self._last: Books | None = None
        self._saved: tuple[list[Step], int, int, dict[tuple[str, str], int], Books | None] = ([], 0, 0, {}, None)

    def close(self) -> None:
        self._double.close(self._name)
        for folder in (self._folder, self._copy, self._looks):
            shutil.rmtree(folder, ignore_errors=True)

    # --- Back in time ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Remember what the dead have left."""
        shutil.rmtree(self._copy, ignore_errors=True)
        copy_tree(self._folder, self._copy)
        self._double.save(self._name)
        self._saved = (list(self.steps), self._posts, self._words, self._home, self._last)

    def restore(self) -> None:
        """Go back to what was remembered: the disk as it was, and the provider's account."""
        shutil.rmtree(self._folder)
        copy_tree(self._copy, self._folder)
        self._double.restore(self._name)
        self.steps = list(self._saved[0])
        self._posts, self._words, self._home, self._last = self._saved[1:]

    # --- Playing -----------------------------------------------------------------------------------------

    def step(self, step: Step) -> Playing:
        """One process, and a look at what it has left."""
        if step.verb == "resume" and not self._books().batches:
            step = Step("run", step.death)  # what was never recorded can't be resumed
        self.steps.append(step)
        job, task_id = self._doubt() if step.verb == "identify" else ("", "")
        self._words += step.verb not in RUNS or step.verb == "word"
        ran = yield Order(self._folder, self._space.door, self.fault, step.verb, step.death, job, task_id)
        so_far = Scenario(self.fault, tuple(self.steps))
        self._ended(so_far, ran, self.new)
        for wrong in self._look(step, ran):
            self.wrong[str(so_far), wrong] = None
        return ran

    def finish(self, verb: str, ran: Ran) -> Playing:
        """Runs that die of nothing, until there is nothing that another could do."""
        if verb not in RUNS:
            if ran.killed:
                yield from self.step(Step(verb))
            verb = "run"
        elif ran.code in ENDS and not (verb == "word" and ran.code == 3):
            return ran
        for _ in range(MOST_FINALS):
            if self._books().unrecorded:
                verb = "run"  # as `resume` says
            ran = yield from self.step(Step(verb))
            if ran.code in ENDS or ran.stop in {"budget", "needs"}:
                return ran
        end = f"{MOST_FINALS} runs and no end: exit code {ran.code} ({ran.stop})"
        self.wrong[str(Scenario(self.fault, self.steps)), end] = None
        return ran

    def _doubt(self) -> tuple[str, str]:
        """An unconfirmed job, and the task that it became, as a person would find it in the provider's list. A POST of
        a dead run may still be on its way: a job whose task is not there yet is not spoken of."""
        books, account = self._books(), self._double.account(self._name)
        known = {a["task_id"] for a in books.attempts}
        for job in books.jobs:
            if job["state"] in {"unconfirmed", "submitting"}:
                found = [t.id for t in account.of(job["key"]) if t.id not in known]
                if found:
                    return job["key"], found[0]
        return "nothing", "task_nobody"

    # --- Judging -----------------------------------------------------------------------------------------

    def _books(self) -> Books:
        """What the ledger says; nobody writes to it between two runs."""
        if self._last is None:
            self._last = Books(self._space.db, self._looks, thorough=False)
        return self._last

    def _look(self, step: Step, ran: Ran) -> list[str]:
        self._last = None
        if ran.broke:
            return [f"the run broke: {ran.stop}"]
        books = self._last = Books(self._space.db, self._looks, thorough=not ran.killed)
        before, account = self._posts, self._double.account(self._name)
        self._posts = len(account.posts)
        wrong = check_now(books, account, self._space.outputs, self._space.fault.budget)
        wrong += check_said(books, self._words)
        wrong += check_recorded(books, self._space.fault.jobs)
        wrong += check_not_again(self._home, account)
        self._home = finished(account, self._space.outputs)
        full = step.death is not None and step.death.point == FULL
        if ran.killed or ran.cut or (full and ran.missed):  # a disk that stays full leaves what a death leaves
            return wrong
        if step.verb not in RUNS:
            return wrong if ran.code in {0, 2} else [*wrong, f"exit code {ran.code} for a word"]
        if not full:
            wrong += check_answered(books, account, before)
        if step.verb != "resume":
            wrong += check_whole(books, ran.stop)
        return wrong + check_end(books, account, self._space.outputs, ran.code, ran.stop)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder; what is one file by two names stays that."""
    target.mkdir()
    seen: dict[int, Path] = {}
    with os.scandir(source) as entries:
        for entry in entries:
            place = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                copy_tree(Path(entry.path), place)
                continue
            first = seen.setdefault(entry.inode(), place)
            if first is place:
                shutil.copyfile(entry.path, place)
            else:
                os.link(first, place)
