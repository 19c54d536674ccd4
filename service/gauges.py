"""What stands in the database now, as metrics: the queue, workers and their slots.

Each scrape reads one snapshot with a few queries (`store.census`).  So it is right
whichever of several api processes answers, and all tell the same: take one, do not add them up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ridgeline.service.lifecycle import RunState, StudyState
from ridgeline.service.resources import WorkerState
from ridgeline.service.store.census import OpenStudies
from ridgeline.service.store.rows import WorkerRow
from ridgeline.service.store.session import Store
from ridgeline.service.waiting import Reason, reason_of

Samples = dict[tuple[str, ...], float]
"""Numbers by the values of the labels."""


class Gauges:
    """A collector, as prometheus_client calls it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Raises `Unavailable` where the database cannot be read."""
        with self._store.reading() as tx:
            by_state = {one.state: one for one in tx.census.studies()}
            open_studies = tx.census.open_studies()
            workers_by_state = tx.census.workers()
            live = tx.workers.all(live_only=True)
            held = tx.runs.num_held([worker.id for worker in live])
        yield _gauge(
            "studies",
            "Studies by state",
            {
                (state,): by_state[state].num_studies if state in by_state else 0
                for state in StudyState
            },
            "state",
        )
        yield _gauge(
            "trials_open",
            "Trials that wait or run",
            {(): sum(one.num_open_trials for one in by_state.values())},
        )
        yield _gauge(
            "projection_stale_studies",
            "Studies whose copies in Optuna's tables are behind",
            {(): sum(one.num_stale for one in by_state.values())},
        )
        yield from _queue(open_studies, live)
        yield _gauge(
            "workers",
            "Workers by state",
            {(state,): workers_by_state.get(state, 0) for state in get_args(WorkerState)},
            "state",
        )
        yield from _devices(live, held)


def _queue(studies: Iterable[OpenStudies], live: list[WorkerRow]) -> Iterator[Metric]:
    runs: Samples = {(RunState.WAITING,): 0, (RunState.RUNNING,): 0}
    waiting_studies: Samples = {(reason,): 0 for reason in Reason}
    waiting_runs = dict(waiting_studies)
    for one in studies:
        runs[RunState.WAITING,] += one.num_waiting
        runs[RunState.RUNNING,] += one.num_running
        reason = reason_of(one.state, one.task, one.dataset, one.data_fingerprint, live)
        waiting_runs[reason,] += one.num_waiting
        if not one.in_flight:
            waiting_studies[reason,] += one.num_studies
    yield _gauge("runs_open", "Runs that wait or run, of open studies", runs, "state")
    yield _gauge("runs_waiting", "Runs that wait, by what for", waiting_runs, "reason")
    yield _gauge(
        "studies_waiting",
        "Open studies without a run in flight, by what they wait for",
        waiting_studies,
        "reason",
    )


def _devices(live: Iterable[WorkerRow], held: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    slots: Counter[tuple[str, ...]] = Counter()
    restarts: Counter[tuple[str, ...]] = Counter()
    for worker in live:  # two may have one name
        for device in worker.devices:
            name, kind = device["name"], device["kind"]
            num_busy = min(held[worker.id].get(name, 0), device["num_slots"])
            slots[worker.name, name, kind, "busy"] += num_busy
            slots[worker.name, name, kind, "idle"] += device["num_slots"] - num_busy
            restarts[worker.name, name, kind] += worker.restarts.get(name, 0)
    labels = ("worker", "device", "kind")
    yield _gauge(
        "device_slots",
        "Runs that the devices of live workers can train at once",
        slots,
        *labels,
        "use",
    )
    family = CounterMetricFamily(
        "ridgeline_device_restarts",
        "Times that a live worker started the process of a device anew",
        labels=labels,
    )
    for values, number in restarts.items():
        family.add_metric(values, number)
    yield family


def _gauge(
    name: str, text: str, samples: Mapping[tuple[str, ...], float], *labels: str
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"ridgeline_{name}", text, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family
