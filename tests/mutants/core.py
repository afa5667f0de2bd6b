"""`python -m tests.mutants.core` lets mutmut (the extra `mutation`) change every line of the pure core, in a copy.

What survives is printed as a change. Those that are harmless are explained in docs/mutants.md, by the changed line or,
for a function, by the kind of change (`KINDS`); any other one needs a test, and ends this with 1. With rooms
(`lifecycle`, `pacing`, ...) only those are changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.mutants.run import ROOT, copy

CAUGHT = {"killed", "timeout"}
"""An endless loop counts: a test did not end."""

KINDS: Mapping[str, Callable[[str], str]] = {
    "words": lambda line: line.replace("XX", "").casefold(),
    "numbers": lambda line: re.sub(r"\d+(\.\d+)?", "0", line),
    "boundary": lambda line: re.sub(r"(?<=[<>])=", "", line),
}
"""What a change of a kind leaves alone: `words` changes only the letters of a text, `numbers` only how much a number
is, `boundary` only whether a comparison holds for equal values."""


def mutmut(tree: Path, *words: str) -> str:
    """Call mutmut in the copy; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *words],
        cwd=tree,
        env={n: v for n, v in os.environ.items() if not n.startswith(("PYTHONPATH", "COV", "PYTEST"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"mutmut ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def fates(results: str) -> dict[str, str]:
    """What became of each mutant, by its name."""
    pairs = (line.strip().rpartition(": ") for line in results.splitlines() if "__mutmut_" in line)
    return {name: fate for name, _, fate in pairs}


def changed(diff: str) -> list[str]:
    """The lines that differ, each with its sign."""
    return [line for line in diff.splitlines() if line[:1] in {"+", "-"} and line[:3] not in {"+++", "---"}]


def place(name: str) -> str:
    """Where a mutant is, as people write it: `lifecycle._next`, `pacing.Gcra.take`."""
    module, _, function = name.rpartition("__mutmut_")[0].removeprefix("batchrunner.core.").partition(".")
    return f"{module}." + function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def explained(name: str, lines: Sequence[str], document: str) -> bool:
    """Whether one line of the document names the function and the changed line (the new one, or the one that went), or
    the function and the kind of the change: `pacing.backoff` (numbers)."""
    if not lines:
        return False
    changes = [f"`{lines[-1][1:].strip()}`", *(f"({kind})" for kind in kinds(lines))]
    return any(
        f"`{place(name)}`" in line and any(change in line for change in changes) for line in document.splitlines()
    )


def kinds(lines: Sequence[str]) -> list[str]:
    """Which kinds a change is of."""
    before, after = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    return [kind for kind, rest in KINDS.items() if list(map(rest, before)) == list(map(rest, after))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.core", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("rooms", nargs="*", help="modules of the core; all by default")
    options = parser.parse_args()
    document = (ROOT / "docs/mutants.md").read_text("utf-8")
    unexplained = 0
    with copy() as tree:
        shutil.copy(ROOT / "tests/mutants/mutmut.cfg", tree / "setup.cfg")
        rooms = [f"batchrunner.core.{room}.*" for room in options.rooms]
        mutmut(tree, "run", "--max-children", str(options.processes), *rooms)
        found = fates(mutmut(tree, "results", "--all", "True"))
        if rooms:
            found = {name: fate for name, fate in found.items() if fate != "not checked"}
        for name in (n for n, fate in found.items() if fate not in CAUGHT):
            lines = changed(mutmut(tree, "show", name))
            known = explained(name, lines, document)
            unexplained += not known
            print(
                "\n".join([f"{place(name)}: {found[name]}" + ("" if known else ", NOT EXPLAINED"), *lines]), flush=True
            )
    print(f"{len(found)} mutants: " + ", ".join(f"{n} {fate}" for fate, n in sorted(Counter(found.values()).items())))
    return 1 if unexplained or not found else 0


if __name__ == "__main__":
    sys.exit(main())
