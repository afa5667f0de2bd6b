"""OpenTelemetry traces of a run (the extra `otel`; imported only where an OTEL_* variable asks for them).

A trace for each submission of a job: the span `job`, and in it `submit`, `wait` and `download`. A trace of a whole
night would be tens of thousands of spans, more than most backends take; each job's is linked to its run's instead. No
prompt, no URL and no key is in them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from .app import RunResult, Watcher
from .core.job import Job, State
from .core.secret import hide
from .core.text import visible
from .engine.clock import wall
from .engine.ports import Tally

PATIENCE = 5.0
"""Seconds for the last spans to be taken."""

STEPS = {State.SUBMITTING: "submit", State.RUNNING: "wait", State.DOWNLOADING: "download"}
"""State -> the span that lasts as long as the job is in it."""

NIGHT = frozenset({"hold", "limits", "limits_set", "paused", "continued", "stopping", "grace_over", "not_sent"})
"""What happens to the run as a whole: events of its span."""


@dataclass(slots=True)
class _Attempt:
    """The open spans of a submission."""

    whole: Span
    step: Span


class Traces(Watcher):
    """Makes spans of what another watcher is told."""

    def __init__(
        self,
        inner: Watcher,
        tracer: Tracer,
        secrets: Iterable[str] = (),
        now: Callable[[], float] = wall,
    ) -> None:
        """Args:
        inner: the other one.
        tracer: where spans go.
        secrets: what must not be in them.
        now: the wall clock, unix seconds.
        """
        self._inner = inner
        self._tracer = tracer
        self._secrets = tuple(secrets)
        self._now = now
        self._run: Span | None = None
        self._batches: Mapping[int, str] = {}
        self._open: dict[int, _Attempt] = {}

    def started(self, run_id: int, batches: Mapping[int, str]) -> None:
        self._batches = batches
        attributes: dict[str, AttributeValue] = {
            "batchrunner.run": run_id,
            "batchrunner.batches": sorted(batches.values()),
        }
        self._run = self._tracer.start_span("run", start_time=self._nano(), attributes=attributes)
        self._inner.started(run_id, batches)

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        self._inner.begin(batches, tally)

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if job is not None:
            self._of_job(job, data)
        elif name in NIGHT and self._run is not None:
            words = {key: value for key, value in data.items() if isinstance(value, str | int | float)}
            self._run.add_event(name, {key: self._text(value) for key, value in words.items()}, self._nano())
        try:
            self._inner.event(name, job, **data)
        except OSError:  # whoever read it has gone; the traces go on
            self._inner = Watcher()

    def ended(self, result: RunResult) -> None:
        if self._run is not None:
            self._run.set_attribute("batchrunner.exit_code", result.exit_code)
            if result.stop is not None:
                self._run.set_attribute("batchrunner.stop", result.stop.value)
        self.close()
        self._inner.ended(result)

    def close(self) -> None:
        """End what is open: what is still in flight is another run's to follow."""
        for job_id in list(self._open):
            self._close(job_id)
        if self._run is not None:
            self._run.end(self._nano())
            self._run = None

    def _of_job(self, job: Job, data: Mapping[str, Any]) -> None:
        step = STEPS.get(job.state)
        known = self._open.get(job.id)
        if "state" not in data or (step is None and known is None):
            return  # no transition, or one of a job of which nothing is sent
        if known is not None:
            self._describe(known, job, data)
            known.step.end(self._nano())
        if step is None:
            self._close(job.id)
        else:
            whole = self._begin(job) if known is None else known.whole
            self._open[job.id] = _Attempt(whole, self._step(step, whole))
            self._describe(self._open[job.id], job, data)

    def _begin(self, job: Job) -> Span:
        attributes: dict[str, AttributeValue] = {
            "batchrunner.batch": self._batches.get(job.batch_id, ""),
            "batchrunner.job": job.key,
            "batchrunner.attempt": job.fact.attempt,
            "batchrunner.model": job.model,
            "batchrunner.credits": job.credits,
        }
        links = [] if self._run is None else [Link(self._run.get_span_context())]
        return self._tracer.start_span("job", start_time=self._nano(), attributes=attributes, links=links)

    def _step(self, name: str, whole: Span) -> Span:
        return self._tracer.start_span(name, set_span_in_context(whole), start_time=self._nano())

    def _describe(self, spans: _Attempt, job: Job, data: Mapping[str, Any]) -> None:
        """Ids, and what went wrong, on the step that it happened in; how the job ended, on the whole."""
        error = data.get("error") or {}
        task_id = data.get("task_id") or getattr(job.fact, "task_id", None)
        request_id = data.get("request_id") or error.get("request_id")
        for span in (spans.whole, spans.step):
            if task_id:
                span.set_attribute("batchrunner.task_id", self._text(task_id))
            if request_id:
                span.set_attribute("batchrunner.request_id", self._text(request_id))
            if error:
                span.set_attribute("error.type", self._text(error.get("code") or "unknown"))
                span.set_status(StatusCode.ERROR, str(self._text(error.get("message", ""))))
        spans.whole.set_attribute("batchrunner.state", job.state.value)

    def _close(self, job_id: int) -> None:
        spans = self._open.pop(job_id)
        spans.step.end(self._nano())
        spans.whole.end(self._nano())

    def _text(self, value: str | int | float) -> str | int | float:
        return visible(hide(value, self._secrets), 300) if isinstance(value, str) else value

    def _nano(self) -> int:
        return int(self._now() * 1e9)


@contextmanager
def tracing(watcher: Watcher, warn: Callable[[str], None], secrets: Iterable[str] = ()) -> Iterator[Watcher]:
    """The watcher that a run is given, which makes spans too. They are sent by OTLP over HTTP, as the standard OTEL_*
    variables say (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables).

    Args:
        watcher: who is told.
        warn: is told of spans that were not taken.
        secrets: what must not be in them.
    """
    logger = logging.getLogger("opentelemetry")  # it tells of every collector that is away, with a traceback
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    exporter = _Counted(OTLPSpanExporter())
    named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or os.environ.get("OTEL_SERVICE_NAME")
    resource = Resource.create(None if named else {"service.name": "batchrunner"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    traces = Traces(watcher, provider.get_tracer("batchrunner"), secrets)
    try:
        yield traces
    finally:
        traces.close()
        ending = Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(PATIENCE)
        if ending.is_alive():
            exporter.shutdown()  # it is trying again
            ending.join(1.0)
        if exporter.failed or ending.is_alive():
            warn("some traces were not taken by the collector that OTEL_EXPORTER_OTLP_ENDPOINT names")


class _Counted(SpanExporter):
    """An exporter that counts what it could not send."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self.failed += len(spans) * (result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
