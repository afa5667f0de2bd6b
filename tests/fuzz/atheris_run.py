"""One run of the fuzzer, in a process of its own: libFuzzer ends the process when it is done.

`python -m tests.fuzz.atheris_run TARGET TALLY [LIBFUZZER ARGUMENT...]`
"""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import mutate

INSTRUMENTED = [
    "batchrunner.manifest",
    "batchrunner.core",
    "batchrunner.providers.answers",
    "batchrunner.providers.wire",
]
TALLY_EVERY = 1000


def main(target: str, tally: Path, arguments: list[str]) -> None:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = importlib.import_module("tests.fuzz.targets")
    seen: Counter[str] = Counter()
    if target == "manifest":
        context = targets.bench()  # kept, and left with the process
        bench = context.__enter__()

        def one(data: bytes) -> str:
            return type(targets.manifest(bench, data)).__name__

    else:

        def one(data: bytes) -> str:
            return type(targets.answer(data)[0]).__name__

    whole = mutate.accepted(target, lambda data: one(data) not in {"ManifestError", "Ambiguous"})

    def mutated(data: bytes, size: int, seed: int) -> bytes:
        return mutate.mutate(data, size, seed, whole, atheris.Mutate)

    again = shlex.join(
        [sys.executable, "-m", "tests.fuzz.atheris_run", target, str(tally)]
    )  # how a merge starts itself
    atheris.Setup([again, *arguments], counted(one, seen, tally), custom_mutator=mutated)
    atheris.Fuzz()


def counted(one: Callable[[bytes], str], seen: Counter[str], tally: Path) -> Callable[[bytes], None]:
    """Counts how inputs ended: a fuzzer whose inputs are all refused tests little."""

    def run(data: bytes) -> None:
        seen[one(data)] += 1
        if seen.total() % TALLY_EVERY == 0:
            tally.write_text(json.dumps(dict(seen)))

    return run


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
