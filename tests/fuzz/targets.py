"""What is fuzzed, and what must hold whatever the bytes. Shared by the fuzzer and by the replay of its corpus.

An input is text where that is possible, so that those that are kept can be read. A manifest with its tables:

    #! profile=final            what the command line would say: a profile, variables
    #! season=summer
    version: 1
    ...
    === csv                     such a line begins the file t.csv; also jsonl and yaml
    id,prompt
    dog,a dog

An answer is an HTTP response. Headers of ours: `X-Cut:` for a body that broke off, `X-Pack: gzip` to compress
the body here, `X-Base: text` for a server's address as a user would write it.
"""

from __future__ import annotations

import gzip
import importlib
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from batchrunner import catalogue
from batchrunner.core import events as e
from batchrunner.core.job import JobSpec, Problem
from batchrunner.core.places import is_url
from batchrunner.core.text import visible
from batchrunner.manifest import Finding, Manifest, ManifestError, checks, events, findings, load, located, rows_jsonl
from batchrunner.manifest.outputs import normal, path_problem
from batchrunner.manifest.requests import ModelRules
from batchrunner.manifest.schema_errors import gate
from batchrunner.providers import answers, replies
from batchrunner.providers.base import Balance, BalanceAnswer
from batchrunner.providers.replies import Reply
from batchrunner.providers.wire import MAX_ANSWER, Key, parse_base

MAX_MESSAGE = 8000
"""Longest message of a finding, in characters: names and values in it are cut."""
MAX_JOBS = 500
KEY_OF_A_JOB = re.compile(r"[A-Za-z0-9._=+@-]+")
TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
KEY = Key("rk_live_canary_0123456789")
TASK = "task_1"
NOW = 1_800_000_000.0

_FILE = re.compile(rb"(?:^|(?<=\n))=== (csv|jsonl|yaml)\n")
_ARGUMENT = re.compile(rb"#! ([^=\n]{1,80})=([^\n]{0,200})\n")
_BREAK = re.compile(r"\r\n|\r|\n")


# --- manifests -------------------------------------------------------------------------------------------


class Bench:
    """A folder for the files of one input after another, and what is built once for all of them.

    Limits are small, so that small inputs reach them. The schemas' validators, 9 tenths of the time of a small
    manifest, are built once; what the rules remember is forgotten before every input.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rules: dict[str, ModelRules] = {}
        self._gates: dict[str, Any] = {}

    def rules(self, model: catalogue.Model, price: Any) -> ModelRules:
        if price is not model.price:
            return ModelRules(model, price)
        if model.name not in self._rules:
            self._rules[model.name] = ModelRules(model, price)
        rules = self._rules[model.name]
        rules._known.clear()
        rules._prices.clear()
        return rules

    def gate(self, schema: Mapping[str, Any]) -> Any:
        name = str(schema.get("$ref"))
        if name not in self._gates:
            self._gates[name] = gate(schema)
        return self._gates[name]

    def write(self, data: bytes) -> tuple[dict[str, bytes], str | None, dict[str, str]]:
        """The files of an input by absolute path, the profile and the variables."""
        parts = _FILE.split(data)
        files = {"m.yaml": parts[0]} | {
            f"t.{kind.decode()}": text for kind, text in zip(parts[1::2], parts[2::2], strict=True)
        }
        for name in ("m.yaml", "t.csv", "t.jsonl", "t.yaml"):
            path = self.folder / name
            if name in files:
                path.write_bytes(files[name])
            else:
                path.unlink(missing_ok=True)
        arguments: dict[str, str] = {}
        at = 0
        while found := _ARGUMENT.match(data, at):
            name, value = (part.decode("utf-8", "surrogateescape") for part in found.groups())
            arguments[name] = value
            at = found.end()
        return {str(self.folder / n): text for n, text in files.items()}, arguments.pop("profile", None), arguments


def in_memory() -> Path | None:
    """Where small files are written fast; a disk can be slower than everything else here together."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None


@contextmanager
def bench() -> Iterator[Bench]:
    """A `Bench` in a folder of its own, with the small limits."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder, ExitStack() as stack:
        made = Bench(Path(os.path.realpath(folder)))
        loader = importlib.import_module("batchrunner.manifest.load")
        stack.enter_context(mock.patch.multiple(loader, ModelRules=made.rules, gate=made.gate))
        stack.enter_context(mock.patch.multiple(checks, MAX_JOBS=MAX_JOBS, gate=made.gate))
        stack.enter_context(mock.patch.multiple(events, MAX_ALIASED=50, MAX_STRUCTURAL=5, MAX_KEYS=20))
        stack.enter_context(mock.patch.multiple(located, MAX_COLLECTIONS=400))
        stack.enter_context(mock.patch.multiple(rows_jsonl, MAX_KEYS=20))
        stack.enter_context(mock.patch.multiple(findings, MAX_SHOWN=20, MAX_KEPT=40))
        yield made


def manifest(bench: Bench, data: bytes) -> Manifest | ManifestError:
    """Load one input and check what came of it. Whatever is raised, `AssertionError` among it, is a bug."""
    files, profile, variables = bench.write(data)
    main = str(bench.folder / "m.yaml")
    result: Manifest | ManifestError
    try:
        result = load(main, profile=profile, variables=variables)
    except ManifestError as error:
        result = error
    if isinstance(result, ManifestError):
        check_findings(result.findings, files)
        assert any(not f.warning for f in result.findings), "refused without an error"
    else:
        check_findings(result.warnings, files)
        assert all(f.warning for f in result.warnings)
        check_manifest(result, bench.folder)
    return result


def check_findings(found: tuple[Finding, ...], files: Mapping[str, bytes]) -> None:
    """Sorted, each said once, of bounded length, printable, and at a place that exists."""
    positions = [(f.file, f.line, f.column) for f in found]
    assert positions == sorted(positions), "not sorted"
    assert len({(f.file, f.line, f.column, f.message, f.warning) for f in found}) == len(found), "said twice"
    assert len(found) <= 2 * (findings.MAX_SHOWN + 1)
    for finding in found:
        assert 0 < len(finding.message) <= MAX_MESSAGE, f"a message of {len(finding.message)} characters"
        assert visible(finding.message) == finding.message, f"not printable: {finding.message!r}"
        text = files[finding.file].decode("utf-8", "replace")
        assert any(
            finding.line <= len(lines) and finding.column <= len(lines[finding.line - 1]) + 1
            for lines in (_BREAK.split(text), text.split("\n"))  # a JSON line ends with a line feed only
        ), f"no such place: {finding}"
        assert finding.line >= 1
        assert finding.column >= 1


def check_manifest(made: Manifest, folder: Path) -> None:
    """Every job valid, keys and files unique, every file inside the folder, money in whole credits."""
    jobs = list(made.jobs)
    assert len(jobs) == len(made.jobs) <= MAX_JOBS
    assert jobs == list(made.jobs), "walked twice, two results"
    assert len({job.key for job in jobs}) == len(jobs), "a key twice"
    assert len({normal(job.output) for job in jobs}) == len(jobs), "an output twice"
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", made.batch)
    assert is_url(str(made.output_dir)) or Path(str(made.output_dir)).is_relative_to(folder)
    assert made.max_credits is None or (type(made.max_credits) is int and made.max_credits >= 0)
    assert 0 < made.submits_per_minute < math.inf
    assert made.in_flight >= 1
    assert made.retry.provider >= 0
    assert made.retry.moderated >= 0
    for job in jobs:
        check_job(job, made)


def check_job(job: JobSpec, made: Manifest) -> None:
    model = catalogue.models()[job.model]
    assert KEY_OF_A_JOB.fullmatch(job.key), job.key
    assert job.request["model"] == job.model
    assert _whole_gate(job.model).is_valid(job.request), f"{job.key} is not valid for its model"
    assert re.fullmatch(r"[0-9a-f]{32}", job.fingerprint)
    json.dumps([job.request, job.matrix, job.tags, job.output], allow_nan=False, ensure_ascii=False).encode()
    assert path_problem(job.output) is None
    if isinstance(made.output_dir, Path):
        assert (made.output_dir / job.output).resolve().is_relative_to(made.output_dir.resolve())
    assert all(type(tag) is str for tag in job.tags)
    assert job.credits is None or (type(job.credits) is int and job.credits >= 0)
    assert job.credits is not None or made.max_credits is None, "a budget, and a job without a price"
    assert job.take >= 1
    assert job.seconds == job.request.get("duration", model.defaults.get("duration"))


_GATES: dict[str, Any] = {}


def _whole_gate(model: str) -> Any:
    """The model's schema in one piece: the loader takes it apart."""
    if model not in _GATES:
        _GATES[model] = gate(catalogue.models()[model].schema)
    return _GATES[model]


# --- answers ---------------------------------------------------------------------------------------------


def reply_of(data: bytes) -> tuple[Reply, str]:
    """The answer that an input describes, and the server's address in it."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = re.search(r"-?[0-9]{1,4}", first.removeprefix("HTTP/1.1"))
    encoding = headers.get("content-encoding", "")
    match headers.get("x-pack"):
        case "gzip":
            body, encoding = gzip.compress(body, mtime=0), encoding or "gzip"
        case "deflate":
            body, encoding = zlib.compress(body), encoding or "deflate"
        case "bomb":
            body, encoding = gzip.compress(body + b" " * (2 * MAX_ANSWER), mtime=0), encoding or "gzip"
    reply = Reply(
        int(status.group()) if status else 200,
        body,
        encoding,
        headers.get("retry-after"),
        headers.get("date"),
        headers.get("x-request-id"),
        "the connection broke" if "x-cut" in headers else "",
    )
    return reply, headers.get("x-base", "")


def answer(data: bytes) -> tuple[e.SubmitAnswer, e.PollAnswer, BalanceAnswer]:
    """Put one answer to all three questions and check what is made of it."""
    reply, base = reply_of(data)
    told = _json(reply)
    submitted = answers.submit_answer(reply, KEY, NOW)
    check_submit(submitted, reply, told)
    polled = answers.poll_answer(reply, TASK, KEY, NOW)
    check_poll(polled, reply, told)
    balance = answers.balance_answer(reply, KEY, NOW)
    check_balance(balance, reply, told)
    for each in (submitted, polled, balance):
        check_words(each)
    if base:
        check_base(base)
    return submitted, polled, balance


def _json(reply: Reply) -> Any:
    """What Python's own reader makes of the body: exact numbers, and every value that a key was given."""
    body = reply.body
    if reply.encoding.strip().lower() in {"gzip", "x-gzip", "deflate"}:
        try:
            body = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body)
        except zlib.error:
            return None
    try:
        return json.loads(body.removeprefix(b"\xef\xbb\xbf").decode(), parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def check_submit(found: e.SubmitAnswer, reply: Reply, told: Any) -> None:
    """Accepted only with the id that stands there; not created only where the provider's own words prove it."""
    assert isinstance(found, get_args(e.SubmitAnswer))
    good = 200 <= reply.status <= 299
    if isinstance(found, e.Accepted):
        assert good, "accepted without a 2xx"
        assert TASK_ID.fullmatch(found.task_id)
        assert found.task_id not in {".", ".."}
        rows = told.get("data") if isinstance(told.get("data"), list) else []
        named = [told.get("id"), told.get("task_id"), *(r.get("task_id") for r in rows if isinstance(r, dict))]
        assert {n for n in named if n is not None} == {found.task_id}, "an id that the answer does not give"
    elif not isinstance(found, e.Ambiguous):
        assert not good
        assert not reply.cut, "half an answer proves nothing"
        assert reply.status in {400, 401, 402, 403, 404, 413, 422, 429}
        assert isinstance(told["error"], dict)
        assert "id" not in told or told["id"] is None


def check_poll(found: e.PollAnswer, reply: Reply, told: Any) -> None:
    """Nothing is said of the task without a 2xx that echoes its id."""
    assert isinstance(found, get_args(e.PollAnswer))
    if isinstance(found, e.StillRunning | e.Completed | e.TaskFailed):
        assert 200 <= reply.status <= 299
        assert TASK in (told.get("id"), told.get("task_id")) or told.get("data"), "another task's answer"
    if isinstance(found, e.Completed):
        assert 0 < len(found.urls) <= replies.MAX_URLS
        assert all(0 < len(url) <= replies.MAX_URL for url in found.urls)
        spent = told["usage"].get("credits") if isinstance(told.get("usage"), dict) else None
        assert found.credits is None or (type(found.credits) is int and found.credits == spent), "credits made up"
    if isinstance(found, e.TaskFailed):
        assert found.moderated == (found.problem.code == answers.MODERATED)
    if isinstance(found, e.Missing):
        assert reply.status == 404


def check_balance(found: BalanceAnswer, reply: Reply, told: Any) -> None:
    assert isinstance(found, get_args(BalanceAnswer))
    if isinstance(found, Balance):
        assert 200 <= reply.status <= 299
        exact = told["balance"]
        assert type(found.credits) is int
        assert found.credits == math.floor(exact if isinstance(exact, int) else float(exact)), "credits made up"


def check_words(found: object) -> None:
    """Nothing that a ledger could not hold, no text without an end, and never the key."""
    assert KEY.reveal() not in repr(found)
    repr(found).encode()
    problem = getattr(found, "problem", None)
    if isinstance(problem, Problem):
        assert 0 < len(problem.message) <= 2 * replies.MAX_MESSAGE
        assert problem.code is None or (
            abs(problem.code) < 2**63 if isinstance(problem.code, int) else len(problem.code) <= replies.MAX_WORD
        )
        assert problem.request_id is None or 0 < len(problem.request_id) <= replies.MAX_WORD
    wait = getattr(found, "retry_after", None)
    assert wait is None or 0 <= wait < math.inf


def check_base(text: str) -> None:
    """A server's address is https, or this machine; nothing but ValueError is raised."""
    try:
        base = parse_base(text, "/api/v1")
    except ValueError:
        return
    assert base.url.startswith(base.origin)
    assert base.url.endswith("/api/v1")
    assert base.origin.startswith("https://") or base.loopback
    assert "@" not in base.origin


__all__ = ["Bench", "answer", "bench", "manifest"]
