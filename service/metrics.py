"""What one process of the api counts and measures since its start, for Prometheus.

docs/metrics.md lists every metric with its labels.  No label holds what a person has named, so that
their number stays small.  What stands in the database is not counted here but read at each scrape:
see `ridgeline.service.gauges`.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# When each series began would be half as many series again.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"ridgeline_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"ridgeline_{name}", text, labels, registry=REGISTRY, buckets=buckets)


REQUEST_SECONDS = _histogram(
    "http_request_duration_seconds",
    "Time until the answer to a request began, with the time for which it waited for work",
    _CALL_BUCKETS,
    "method",
    "route",
    "status",
)
SYNC_SECONDS = _histogram(
    "sync_duration_seconds",
    "Time that one look at what a worker states took, without waiting for work",
    _CALL_BUCKETS,
)
LOCK_WAIT_SECONDS = _histogram(
    "lock_wait_seconds",
    "Time for which a lock was waited for",
    _WAIT_BUCKETS,
    "lock",
)
TRIALS_ENDED = _counter("trials_ended_total", "Trials that ended", "state", "reason")
REPORTS_RECEIVED = _counter("reports_received_total", "Epochs of runs that were reported")
CHARGES = _counter("charges_total", "Failures that were blamed on one run")
LEASES_EXPIRED = _counter("leases_expired_total", "Holders of runs that fell silent", "holder")
REFUSED_WRITES = _counter(
    "refused_writes_total", "Reports and ends that came too late and were refused", "reason"
)
DATABASE_ERRORS = _counter("database_errors_total", "Calls the database did not take", "kind")
PROJECTION_FAILURES = _counter(
    "projection_failures_total", "Times that a study's copy in Optuna's tables was left behind"
)
PROJECTION_REPAIRS = _counter(
    "projection_repairs_total", "Times that a copy that was behind was brought up to date"
)

# A series that appears with its first event looks to Prometheus as if nothing had happened.
for _counted, _values in (
    (LEASES_EXPIRED, ("worker", "program")),
    (
        REFUSED_WRITES,
        ("stale_attempt", "run_ended", "study_ended", "unknown_run", "worker_given_up"),
    ),
    (DATABASE_ERRORS, ("outage", "pool", "turn", "statement")),
):
    for _value in _values:
        _counted.labels(_value)
