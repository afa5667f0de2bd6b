"""The kept inputs of the fuzzer, and every one that it ever broke something with, replayed without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.text import visible
from batchrunner.manifest import Finding, Manifest, ManifestError, expand
from batchrunner.providers.base import Balance
from batchrunner.providers.replies import Reply
from tests.cli_support import call
from tests.fuzz import targets
from tests.fuzz.mutate import CORPUS, mutate

MANIFESTS = sorted((CORPUS / "manifest").iterdir())
ANSWERS = sorted((CORPUS / "answer").iterdir())


@pytest.fixture(scope="module")
def bench() -> Iterator[targets.Bench]:
    with targets.bench() as made:
        yield made


def test_manifests(bench: targets.Bench) -> None:
    seen: Counter[type] = Counter()
    for path in MANIFESTS:
        try:
            seen[type(targets.manifest(bench, path.read_bytes()))] += 1
        except Exception as error:
            raise AssertionError(f"{path.name} breaks the reader") from error
    assert seen[Manifest] >= 20
    assert seen[ManifestError] >= 50


def test_answers() -> None:
    seen: Counter[type] = Counter()
    for path in ANSWERS:
        try:
            seen.update(type(answer) for answer in targets.answer(path.read_bytes()))
        except Exception as error:
            raise AssertionError(f"{path.name} breaks the parser") from error
    wanted = {e.Accepted, e.Ambiguous, e.Rejected, e.Refused, e.Throttled, e.StillRunning, e.Completed, e.TaskFailed}
    assert wanted | {e.Missing, e.PollFailed, Balance} <= seen.keys()


def test_no_traceback_through_the_command_line(bench: targets.Bench) -> None:
    """With the limits of the fuzzer too, and every line that people see is printable."""
    for path in MANIFESTS[::8]:
        _, profile, variables = bench.write(path.read_bytes())
        arguments = [word for name, value in variables.items() for word in ("--var", f"{name}={value}")]
        ran = call("validate", bench.folder / "m.yaml", *(["--profile", profile] if profile else []), *arguments)
        assert ran.code in {0, 2}, f"{path.name}: {ran}"
        assert "Traceback" not in ran.err
        assert all(visible(line) == line for line in (ran.out + ran.err).split("\n"))


def test_mutations_are_repeatable_and_bounded() -> None:
    data = (b"a: 1\nb: ${x}\n", b"c: [1, 2]\nd: 3\n")
    made = [mutate(data[0], 12, seed, data, lambda text, size: text[:size]) for seed in range(200)]
    assert made == [mutate(data[0], 12, seed, data, lambda text, size: text[:size]) for seed in range(200)]
    assert max(map(len, made)) <= 12
    assert len(set(made)) > 20


# --- the oracle can say no -------------------------------------------------------------------------------

FILES = {"m.yaml": b"version: 1\n"}


@pytest.mark.parametrize(
    "found",
    [
        (Finding("m.yaml", 3, 1, "", "beyond the end"),),
        (Finding("m.yaml", 1, 99, "", "beyond the line"),),
        (Finding("m.yaml", 1, 1, "", "an escape \x1b[31m"),),
        (Finding("m.yaml", 1, 1, "", "x" * 10_000),),
        (Finding("m.yaml", 2, 1, "", "b"), Finding("m.yaml", 1, 1, "", "not sorted")),
        (Finding("m.yaml", 1, 1, "", "twice"), Finding("m.yaml", 1, 1, "", "twice")),
    ],
)
def test_a_wrong_finding_is_noticed(found: tuple[Finding, ...]) -> None:
    with pytest.raises(AssertionError):
        targets.check_findings(found, FILES)


def test_a_wrong_answer_is_noticed() -> None:
    def reply(text: bytes) -> tuple[Reply, object]:
        made, _ = targets.reply_of(text)
        return made, targets._json(made)

    for text in (b'HTTP/1.1 500\n\n{"id": "task_1"}', b'HTTP/1.1 200\n\n{"id": "task_2"}', b'HTTP/1.1 200\n\n{"x": 1}'):
        with pytest.raises(AssertionError):
            targets.check_submit(e.Accepted("task_1"), *reply(text))
    with pytest.raises(AssertionError):
        targets.check_poll(e.Completed(("https://x",), credits=5), *reply(b'HTTP/1.1 200\n\n{"id": "task_1"}'))
    with pytest.raises(AssertionError):
        targets.check_balance(Balance(7), *reply(b'HTTP/1.1 200\n\n{"balance": 8}'))
    with pytest.raises(AssertionError):
        targets.check_words(e.Accepted(targets.KEY.reveal()))


def test_a_wrong_job_is_noticed(bench: targets.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        b"version: 1\nbatch: b\ndefaults: {model: kling-3-0-turbo}\nshots: [{id: a, prompt: x}, {id: b, prompt: x}]\n"
    )
    assert isinstance(targets.manifest(bench, text), Manifest)
    for name, wrong in (("job_key", lambda *_: "a-1"), ("fingerprint", lambda *_: "")):
        with monkeypatch.context() as patch:
            patch.setattr(expand, name, wrong)
            with pytest.raises(AssertionError):
                targets.manifest(bench, text)
