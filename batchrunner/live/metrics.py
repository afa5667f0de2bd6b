"""The figures of the ledger as Prometheus reads them, by its own client library (the extra `metrics`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..exits import UsageError

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format (prometheus.io/docs/instrumenting/exposition_formats)."""

RUN = {
    "in_flight": ("in_flight", "Submissions under way and running tasks."),
    "in_flight_limit": ("in_flight_limit", "How many of them are allowed now."),
    "submits_per_minute": ("submits_per_minute", "Submissions accepted a minute, lately."),
    "submits_per_minute_limit": ("submits_per_minute_limit", "How many a minute are allowed now."),
    "per_minute": ("finished_per_minute", "Jobs finished a minute, lately."),
    "eta_seconds": ("eta_seconds", "Likely time until the run ends."),
    "hold": ("hold_seconds", "Time for which the service has asked to send nothing."),
}
"""Key of a run that is alive -> (name, help)."""

WORKER = {
    "alive": ("worker_alive", "Whether a worker of a ledger in PostgreSQL has given a sign of life lately."),
    "silent_seconds": ("worker_silent_seconds", "Time since a worker's last sign of life."),
    "in_flight": ("worker_in_flight", "Submissions under way and running tasks of a worker."),
    "in_hand": ("worker_in_hand", "Jobs that a worker has in hand."),
}
"""Key of a worker that has not ended -> (name, help)."""

ENDED = {
    "started_at": ("run_started_timestamp_seconds", "When the last run began."),
    "ended_at": ("run_ended_timestamp_seconds", "When the last run ended; absent while it is alive."),
    "exit_code": ("run_exit_code", "Exit code of the last run; absent while it is alive."),
}


class Missing(UsageError):
    """The library is not installed."""


def exposition(statuses: Sequence[dict[str, Any]], workers: Sequence[dict[str, Any]] = ()) -> bytes:
    """The text format of what `queries.status` says of each batch, and `ledger.workers` of who is at work.

    Raises:
        Missing: prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest
    except ImportError:
        raise Missing("metrics need the library prometheus_client: pip install 'batchrunner[metrics]'") from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(statuses, workers))
    return generate_latest(registry)


class _Collector:
    def __init__(self, statuses: Sequence[dict[str, Any]], workers: Sequence[dict[str, Any]]) -> None:
        self._statuses = statuses
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        def gauge(name: str, text: str, labels: Sequence[str] = ("batch",)) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"batchrunner_{name}", text, labels=labels)

        info = gauge("info", "The version of batchrunner.", ("version",))
        info.add_metric([__version__], 1)
        yield info
        jobs = gauge("jobs", "Current jobs by state.", ("batch", "state"))
        money = gauge("credits", "Credits by kind; 1000 are a dollar.", ("batch", "kind"))
        alive = gauge("run_alive", "Whether a run works on the batch.")
        paused = gauge("run_paused", "Whether it was paused by a person.")
        some = {key: gauge(*words) for key, words in (RUN | ENDED).items()}
        for one in self._statuses:
            batch = one["batch"]
            for state, count in one["states"].items():
                jobs.add_metric([batch, state], count)
            for kind, credits_ in one["credits"].items():
                if credits_ is not None:
                    money.add_metric([batch, kind], credits_)
            run = one["run"] or {}
            alive.add_metric([batch], int(bool(run.get("alive"))))
            paused.add_metric([batch], int(bool(run.get("paused_by"))))
            for key, family in some.items():
                if run.get(key) is not None:
                    family.add_metric([batch], run[key])
        yield from (jobs, money, alive, paused, *some.values())
        labels = ("worker", "host", "part")
        crew = {key: gauge(name, text, labels) for key, (name, text) in WORKER.items()}
        for one in self._workers:
            for key, family in crew.items():
                family.add_metric([str(one["worker"]), one["host"], one["part"]], one[key])
        if self._workers:
            yield from crew.values()
