"""OpenTelemetry: a real run against the double, and a collector of our own that reads what is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.test_telling import account
from tests.cli_support import call
from tests.crash.command_line import CommandLine
from tests.double import Double, Plan, Rule
from tests.integration.test_notify import listening


def spans_of(bodies: list[bytes]) -> list[tuple[dict[str, Any], Any]]:
    """(resource, span) of everything that was sent."""
    found = []
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            found += [(of, span) for scope in resource.scope_spans for span in scope.spans]
    return found


def words(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_submission_is_a_trace(double: Double, tmp_path: Path) -> None:
    rules = [Rule("task", "fail", 2, 2), Rule("post", "throttle")]
    line = CommandLine.at(tmp_path, double.open(account(tmp_path), Plan(rules, polls=1)))
    line.write(2, in_flight=1)
    with listening() as seen:
        environment = {**line.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": seen.url("/otlp")}
        traced = CommandLine(tmp_path, {**environment, "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=studio"})
        assert traced.call("run", "night.yaml") == 1

    assert {path for path, _, _ in seen.requests} == {"/otlp/v1/traces"}
    assert all(headers["x-tenant"] == "studio" for _, headers, _ in seen.requests)
    found = spans_of([body for _, _, body in seen.requests])
    assert all(of["service.name"] == "batchrunner" for of, _ in found)
    spans = [span for _, span in found]
    [run] = [span for span in spans if span.name == "run"]
    assert words(run)["batchrunner.exit_code"] == 1
    assert [event.name for event in run.events].count("hold") == 1

    jobs = sorted((span for span in spans if span.name == "job"), key=lambda span: span.start_time_unix_nano)
    keys = ("batchrunner.job", "batchrunner.attempt", "batchrunner.state")
    assert [tuple(words(span)[key] for key in keys) for span in jobs] == [
        ("clip-1", 1, "pending"),
        ("clip-2", 1, "succeeded"),
        ("clip-1", 2, "failed"),
    ]
    tasks = {task.id for task in double.account(account(tmp_path)).tasks}
    for job, steps in zip(jobs, (["submit"], ["submit", "wait", "download"], ["submit", "wait"]), strict=True):
        inside = [span for span in spans if span.parent_span_id == job.span_id]
        assert [span.name for span in sorted(inside, key=lambda span: span.start_time_unix_nano)] == steps
        assert {span.trace_id for span in inside} == {job.trace_id}
        assert all(job.start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano for s in inside)
        assert job.links[0].span_id == run.span_id
        assert steps == ["submit"] or words(job)["batchrunner.task_id"] in tasks
    assert jobs[2].status.code == 2
    assert words(jobs[2])["error.type"]
    everything = b"".join(body for _, _, body in seen.requests)
    assert line.environment["REAPI_API_KEY"].encode() not in everything
    assert b"a dog on a boat" not in everything


def test_a_collector_that_is_away_is_a_warning_and_changes_nothing(double: Double, tmp_path: Path) -> None:
    door = double.open(account(tmp_path), Plan(polls=1))
    with listening() as seen:
        away = seen.url()
    line = CommandLine.at(tmp_path, door)
    line.write(1)
    away_for = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": away, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    run = CommandLine(tmp_path, {**line.environment, **away_for}).start("run", "night.yaml")
    assert run.end() == 0
    assert (tmp_path / "stderr").read_text().splitlines() == [
        "warning: some traces were not taken by the collector that OTEL_EXPORTER_OTLP_ENDPOINT names"
    ]


def test_what_can_not_be_sent_is_said(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = CommandLine.at(tmp_path, double.open(account(tmp_path), Plan(polls=1)))
    line.write(1)
    for name, value in line.environment.items():
        monkeypatch.setenv(name, value)
    for exporter, said in (("console", "sent by OTLP over http/protobuf only"), ("otlp", "'batchrunner[otel]'")):
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        monkeypatch.delitem(sys.modules, "batchrunner.traces", raising=False)
        ran = call("run", "night.yaml", "--db", f"{exporter}.db", "--quiet")
        assert ran.code in {0, 2}
        assert ran.err.startswith("warning: an OTEL_ variable asks for traces")
        assert said in ran.err.splitlines()[0]
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert call("run", "night.yaml", "--db", "console.db", "--quiet").err == ""


def test_without_a_variable_nothing_is_imported() -> None:
    script = (
        "import sys; from batchrunner.cli import errors; code = errors.main(['run', 'none.yaml']); "
        "print(code, [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.splitlines()[-1] == "2 []"
