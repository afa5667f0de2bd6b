"""Applies one mistake to a copy of the project and runs the tests that must catch it there."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.mutants.catalogue import Edit, Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("batchrunner", "tests", "schemas", "manifests", "docs", "pyproject.toml", "README.md", "LICENSE")

TEST_TIMEOUT = 150
"""Seconds for one test: a mistake may make it wait for ever."""


LINGER = 10
"""Seconds that the process may live on after its report: a connection that a mistake left open has a thread."""


MEMORY = 8 << 20
"""KiB of address space: a mistake may want all there is."""

PATIENCE = 900
"""Seconds for all the tests of one copy, however slow the machine: one that can't be interrupted must not stay."""


class CannotTell(Exception):
    """A mistake was not tried: its edit does not apply, or the tests fail without it too."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a selection of tests ended: the tests that failed, their words, and those that ended for another reason."""

    code: int
    failed: tuple[tuple[str, str], ...]
    errors: tuple[str, ...]
    passed: int
    output: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mistake.

    Attributes:
        name: the mutant's.
        caught_by: the test that failed; empty where none did.
        words: how it failed.
        not_tried: why it could not be tried; empty where it was.
    """

    name: str
    caught_by: str = ""
    words: str = ""
    not_tried: str = ""

    @property
    def survived(self) -> bool:
        return not self.caught_by and not self.not_tried


def mutated(edit: Edit, text: str) -> str:
    """The text with the mistake in it.

    Raises:
        CannotTell: what is to be replaced does not stand there exactly once, nothing would change, or it would be no
            program.
    """
    if text.count(edit.old) != 1:
        raise CannotTell(f"{edit.file}: stands {text.count(edit.old)} times: {edit.old!r}")
    after = text.replace(edit.old, edit.new)
    if edit.file.endswith(".py"):
        try:
            same = ast.dump(ast.parse(text)) == ast.dump(ast.parse(after))
        except SyntaxError as error:
            raise CannotTell(f"{edit.file}: this is no Python: {edit.new!r} ({error})") from error
        if same:
            raise CannotTell(f"{edit.file}: nothing changes with {edit.new!r}")
    return after


def apply(mutant: Mutant, root: Path) -> None:
    """Write the mistake into the tree at `root`."""
    for edit in mutant.edits:
        file = root / "batchrunner" / edit.file
        file.write_text(mutated(edit, file.read_text("utf-8")), "utf-8")


@contextmanager
def copy(tree: Path = ROOT) -> Iterator[Path]:
    """A copy of the project, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="batchrunner-mutant-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        for each in COPIED:
            source = tree / each
            if source.is_dir():
                shutil.copytree(source, root / each, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
            else:
                shutil.copy(source, root / each)
        yield root


def environment(root: Path) -> dict[str, str]:
    """Every process, the command line too, imports the package of the copy."""
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI", "BATCHRUNNER", "COV", "PYTEST"))}
    return ours | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


def check_imports(mutant: Mutant, root: Path) -> None:
    """Every module with a mistake in it can be imported, from the copy: a program that does not start proves nothing.

    Raises:
        CannotTell: it can't.
    """
    modules = [e.file.removesuffix(".py").replace("/", ".") for e in mutant.edits if e.file.endswith(".py")]
    code = "; ".join(
        ["import batchrunner", *(f"import batchrunner.{m}" for m in modules), "print(batchrunner.__file__)"]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment(root), capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout.startswith(str(root)):
        raise CannotTell(f"{mutant.name}: the program does not start any more: {done.stderr[-300:]}")


def run_tests(root: Path, tests: Iterable[str], *, first_only: bool) -> Ran:
    """Run tests in the tree at `root`, in a process of its own."""
    report, output = root / "report.xml", root / "output.txt"
    words = ["sh", "-c", f'ulimit -v {MEMORY} && exec "$@"', "sh"]
    words += [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", "--no-header"]
    words += [f"--timeout={TEST_TIMEOUT}", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    words += [*(["-x"] if first_only else []), *tests]
    with (
        output.open("wb") as file,
        subprocess.Popen(
            words, cwd=root, env=environment(root), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        ended, waited = False, 0
        while process.poll() is None:
            try:
                process.wait(LINGER)
            except subprocess.TimeoutExpired:
                waited += LINGER
                if ended or waited > PATIENCE:
                    os.killpg(process.pid, signal.SIGKILL)
                ended = report.exists()
    failed, errors, passed = [], [], 0
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        name = f"{case.get('classname')}::{case.get('name')}"
        failure = case.find("failure")
        if failure is not None:
            failed.append((name, (failure.get("message") or "").split("\n")[0]))
        elif case.find("error") is not None:
            errors.append(name)
        else:
            passed += case.find("skipped") is None
    code = process.returncode
    if code == -signal.SIGKILL and report.exists():  # all is said; that the process lingered says nothing
        code = 1 if failed else 0
    return Ran(code, tuple(failed), tuple(errors), passed, output.read_text("utf-8", "replace"))


def selection(mutants: Iterable[Mutant]) -> list[str]:
    """Every test that they name, once."""
    tests = {test for mutant in mutants for test in mutant.tests}
    return sorted(test for test in tests if "::" not in test or test.split("::")[0] not in tests)


def check_baseline(mutants: Iterable[Mutant], tree: Path = ROOT) -> int:
    """Run every test that the mutants name on a copy without a mistake; how many passed.

    Raises:
        CannotTell: not every one passes.
    """
    with copy(tree) as root:
        ran = run_tests(root, selection(mutants), first_only=False)
    if ran.code != 0 or not ran.passed:
        raise CannotTell(f"the tests fail without any mistake:\n{ran.output[-3000:]}")
    return ran.passed


def try_mutant(mutant: Mutant, tree: Path = ROOT) -> Verdict:
    """Make the mistake in a copy, and see who catches it."""
    with copy(tree) as root:
        try:
            apply(mutant, root)
            check_imports(mutant, root)
        except CannotTell as why:
            return Verdict(mutant.name, not_tried=str(why))
        ran = run_tests(root, mutant.tests, first_only=True)
    if ran.code == 0:
        return Verdict(mutant.name)
    if ran.code != 1 or not ran.failed:
        return Verdict(
            mutant.name, not_tried=f"no test failed, and pytest ended with {ran.code}:\n{ran.output[-3000:]}"
        )
    return Verdict(mutant.name, *ran.failed[0])


def try_all(
    mutants: Sequence[Mutant], processes: int, done: Callable[[Verdict], None], tree: Path = ROOT
) -> list[Verdict]:
    """Try them side by side; `done` is called with each as it ends."""
    verdicts = []
    with ThreadPoolExecutor(processes) as pool:
        for verdict in pool.map(partial(try_mutant, tree=tree), mutants):
            done(verdict)
            verdicts.append(verdict)
    return verdicts
