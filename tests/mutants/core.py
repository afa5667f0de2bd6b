"""`python -m tests.mutants.core` lets mutmut (the extra `mutation`) change every line of the pure core, in a copy.

What survives is printed as a change. What is harmless is explained in docs/mutants.md (see `explained`); anything else
needs a test, and ends this with 1. With rooms (`lifecycle`, `pacing`, ...) only those are changed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import unified_diff
from pathlib import Path

from tests.mutants.run import ROOT, copy, environment

NAMES = "BATCHRUNNER_MUTANTS"
"""In the environment: a file with the mutants' names, a line each."""
FATES = "BATCHRUNNER_MUTANT_FATES"
"""In the environment: a file to be written, `name: fate` a line."""
PROCESSES = "BATCHRUNNER_MUTANT_PROCESSES"

CAUGHT = {"killed", "timeout"}
"""An endless loop counts: a test did not end."""

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')

TESTS = tuple((ROOT / "tests/mutants/core.txt").read_text("utf-8").split())
"""The fast tests of the core."""


def mutate(tree: Path, rooms: Sequence[str]) -> dict[str, str]:
    """Put mutmut's mutants into the core of a copy: each one's name, and what it changes, as a unified diff."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    changes = {}
    for room in rooms:
        file = tree / f"batchrunner/core/{room}.py"
        made = mutate_file_contents(str(file), file.read_text("utf-8"))
        file.write_text(made.code, "utf-8")
        lines = made.code.splitlines()
        for name in made.mutant_names:
            full = f"batchrunner.core.{room}.{name}"
            function = place(full).rpartition(".")[2]
            before, after = (
                "\n".join(lines[span.start - 1 : span.end]).replace(each, function).splitlines()
                for each in (f"{name.rpartition('_')[0]}_orig", name)
                for span in [made.line_span_by_function_name[each]]
            )
            changes[full] = "\n".join(unified_diff(before, after, lineterm=""))
    return changes


def fates(tree: Path, names: Iterable[str], processes: int) -> dict[str, str]:
    """What becomes of each mutant: the tests run in the copy, see `tests.mutants.forks`."""
    work = tree / "forks"
    work.mkdir()
    (work / "names").write_text("".join(f"{name}\n" for name in names), "utf-8")
    words = ["-p", "tests.mutants.forks", "--hypothesis-profile=mutants", "-p", "no:cacheprovider", "-p", "no:xdist"]
    words += ["-o", "timeout=0", "--capture=no", "--tb=no", f"--basetemp={work / 'temporary'}", *TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tree,
        env=environment(tree) | {NAMES: str(work / "names"), FATES: str(work / "fates"), PROCESSES: str(processes)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}")
    lines = (work / "fates").read_text("utf-8").splitlines()
    return {name: fate for name, _, fate in (line.rpartition(": ") for line in lines)}


def changed(diff: str) -> list[str]:
    """The lines that differ, each with its sign."""
    return [line for line in diff.splitlines() if line[:1] in {"+", "-"} and line[:3] not in {"+++", "---"}]


def place(name: str) -> str:
    """Where a mutant is, as people write it: `lifecycle._next`, `pacing.Gcra.take`."""
    module, _, function = name.rpartition("__mutmut_")[0].removeprefix("batchrunner.core.").partition(".")
    return f"{module}." + function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def explained(name: str, lines: Sequence[str], document: str) -> str:
    """The line of the document that names the function and the changed line (the new one, or the one that went), or
    says of the function that its words don't matter: `notice.address_problem` (words). Empty where none does."""
    if not lines:
        return ""
    changes = [f"`{lines[-1][1:].strip()}`", *([f"`{place(name)}` (words)"] if only_words(lines) else [])]
    about = (line for line in document.splitlines() if f"`{place(name)}`" in line)
    return next((line for line in about if any(change in line for change in changes)), "")


def explanations(document: str) -> list[str]:
    """The lines of the document that explain something."""
    return re.findall(r"^- `[a-z]+\.\w.*", document.partition("### What survives")[2], re.MULTILINE)


def only_words(lines: Sequence[str]) -> bool:
    """Whether only the letters of a text for people have changed."""
    before, after = ([_without_letters(line[1:]) for line in lines if line[0] == sign] for sign in "-+")
    return before == after


def _without_letters(line: str) -> str:
    if re.search(r"==|!=|\bin\b|[\[{(]T[\]})]|T:|startswith", _TEXT.sub("T", line)):
        return line  # a text that something is compared with, looked up by or made of is none for people
    return _TEXT.sub(lambda text: text[0].replace("XX", "").casefold(), line)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.core", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("rooms", nargs="*", help="modules of the core; all by default")
    options = parser.parse_args()
    every = sorted(f.stem for f in (ROOT / "batchrunner/core").glob("*.py") if f.stem != "__init__")
    if unknown := sorted({*options.rooms} - {*every}):
        parser.error(f"no such room: {', '.join(unknown)}")
    document = (ROOT / "docs/mutants.md").read_text("utf-8")
    unexplained, needed = 0, set()
    with copy() as tree:
        changes = mutate(tree, options.rooms or every)
        found = fates(tree, changes, options.processes)
    for name in (n for n in changes if found[n] not in CAUGHT):
        lines = changed(changes[name])
        known = explained(name, lines, document)
        unexplained += not known
        needed.add(known)
        print("\n".join([f"{place(name)}: {found[name]}" + ("" if known else ", NOT EXPLAINED"), *lines]))
    for line in explanations(document):
        if not options.rooms and line not in needed:
            print(f"docs/mutants.md explains what does not survive: {line}")
    print(f"{len(found)} mutants: " + ", ".join(f"{n} {fate}" for fate, n in sorted(Counter(found.values()).items())))
    return 1 if unexplained or not found else 0


if __name__ == "__main__":
    sys.exit(main())
