"""A study written straight into our tables, as the service would leave them, and projected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)

from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.service import projection
from ridgeline.service.lifecycle import OPEN_TRIAL, RunEnd, RunState, trial_end
from ridgeline.service.store.tables import reports, runs, studies, trials

METRIC = "validation_accuracy"
SPACE: dict[str, Any] = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True},
    "batch_size": {"type": "values", "values": [16, 32, 64]},
    "optimizer": {"type": "values", "values": ["sgd", "adam"]},
}
CONFIG = {"learning_rate": 0.01, "l2": 0.001, "batch_size": 32, "optimizer": "adam"}


def spec(name: str = "digits", **changes: Any) -> StudySpec:
    return parse_spec(
        {
            "name": name,
            "task": {"name": "mlp", "dataset": "digits"},
            "space": SPACE,
            "sampler": {"name": "tpe", "seed": 7},
            "budget": {"trials": 100, "epochs": 20, "seconds": 3_600},
            **changes,
        }
    )


def open_engine(url: str) -> Engine:
    """An engine whose transactions and savepoints are real ones on SQLite too."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def leave_begin_to_us(connection: Any, _entry: object) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Book:
    """One study.  Every change takes the next revision; times are those revisions, in seconds."""

    def __init__(self, engine: Engine, spec: StudySpec, **values: Any) -> None:
        self.engine, self.spec = engine, spec
        self.revision = 1
        with engine.begin() as connection:
            self.study_id: int = connection.execute(
                insert(studies).returning(studies.c.id),
                {
                    **_zeros(studies),
                    "name": spec.name,
                    "spec": spec.model_dump(mode="json"),
                    "state": "QUEUED",
                    "revision": 1,
                    "state_revision": 1,
                    **values,
                },
            ).scalar_one()

    @contextmanager
    def transaction(self, *, project: bool = True) -> Iterator[Page]:
        """Changes to the study and, unless told otherwise, their projection, committed at once."""
        with self.engine.begin() as connection:
            page = Page(self, connection)
            yield page
            page.write_revision()
            if project:
                page.project()

    def row(self) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(select(studies).where(studies.c.id == self.study_id)).one()


class Page:
    """The study in one transaction."""

    def __init__(self, book: Book, connection: Connection) -> None:
        self.connection = connection
        self._book = book

    def write_revision(self) -> None:
        revision = self._book.revision
        its = trials.c.study_id == self._book.study_id
        is_open = trials.c.state.in_([state.value for state in OPEN_TRIAL])
        self.connection.execute(
            update(studies)
            .where(studies.c.id == self._book.study_id)
            .values(
                revision=revision,
                device_seconds=float(revision),
                next_number=select(func.count()).where(its).scalar_subquery(),
                num_open=select(func.count()).where(its, is_open).scalar_subquery(),
            )
        )

    def project(self) -> None:
        self.write_revision()
        with self.connection.begin_nested():
            projection.project(self.connection, self._book.study_id)

    def next_revision(self) -> int:
        self._book.revision += 1
        return self._book.revision

    def set_state(self, state: str, **values: Any) -> None:
        self.connection.execute(
            update(studies)
            .where(studies.c.id == self._book.study_id)
            .values(state=state, state_revision=self.next_revision(), **values)
        )

    def add(self, number: int, *, replicates: int = 1, **values: Any) -> None:
        """A waiting trial with its planned runs; run `r` has the seed 100 + r."""
        common = {"study_id": self._book.study_id, "state": "WAITING"}
        revision = self.next_revision()
        origin = {"origin": "sampler", "sampler": "tpe/1", "sampler_seed": 5, "seen_revision": 3}
        trial_id = self.connection.execute(
            insert(trials).returning(trials.c.id),
            {
                **_zeros(trials),
                **common,
                **origin,
                "number": number,
                "config": CONFIG,
                "revision": revision,
                "created_revision": revision,
                **values,
            },
        ).scalar_one()
        self.connection.execute(
            insert(runs),
            [
                {
                    **_zeros(runs),
                    **common,
                    "trial_id": trial_id,
                    "replicate": replicate,
                    "seed": 100 + replicate,
                    "revision": self.next_revision(),
                }
                for replicate in range(replicates)
            ],
        )

    def start(self, number: int, replicate: int = 0) -> None:
        run = self.run(number, replicate)
        self._update(run, state="RUNNING", attempt=run.attempt + 1)
        trial = self.trial(number)
        started = trial.started_at or float(self._book.revision)
        self._touch(number, state="RUNNING", started_at=started)

    def report(
        self,
        number: int,
        epochs: Mapping[int, float],
        replicate: int = 0,
        metric: str = METRIC,
        **others: float,
    ) -> None:
        run = self.run(number, replicate)
        self.connection.execute(
            insert(reports),
            [
                {
                    "run_id": run.id,
                    "epoch": epoch,
                    "study_id": self._book.study_id,
                    "attempt": run.attempt,
                    "metrics": {metric: value, "loss": 1.0, **others},
                    "revision": self.next_revision(),
                    "reported_at": 0.0,
                }
                for epoch, value in epochs.items()
            ],
        )
        self._touch(number)

    def hand_back(self, number: int, replicate: int = 0, *, keep_epochs: int = 0) -> None:
        run = self.run(number, replicate)
        self.connection.execute(
            delete(reports).where(reports.c.run_id == run.id, reports.c.epoch > keep_epochs)
        )
        self._update(run, state="WAITING")
        self._touch(number)

    def end(
        self, number: int, replicate: int = 0, *, state: str = "COMPLETE", **values: Any
    ) -> None:
        run = self.run(number, replicate)
        self._update(run, state=state, finished_at=float(self._book.revision), **values)
        its_runs = self.connection.execute(
            select(runs).where(runs.c.trial_id == run.trial_id).order_by(runs.c.replicate)
        ).all()
        outcome = trial_end([RunEnd(RunState(r.state), r.reason, r.value) for r in its_runs])
        if outcome is None:
            self._touch(number)
        else:
            self._touch(
                number,
                state=outcome[0].value,
                reason=outcome[1],
                value=outcome[2],
                finished_at=float(self._book.revision),
                finished_revision=self._book.revision + 1,
            )

    def run(self, number: int, replicate: int = 0) -> Any:
        last_epoch = select(func.max(reports.c.epoch)).where(reports.c.run_id == runs.c.id)
        return self.connection.execute(
            select(runs, func.coalesce(last_epoch.scalar_subquery(), 0).label("last_epoch"))
            .join(trials, trials.c.id == runs.c.trial_id)
            .where(self._is(number), runs.c.replicate == replicate)
        ).one()

    def trial(self, number: int) -> Any:
        return self.connection.execute(select(trials).where(self._is(number))).one()

    def _is(self, number: int) -> Any:
        return (trials.c.study_id == self._book.study_id) & (trials.c.number == number)

    def _update(self, run: Any, **values: Any) -> None:
        self.connection.execute(
            update(runs).where(runs.c.id == run.id).values(revision=self.next_revision(), **values)
        )

    def _touch(self, number: int, **values: Any) -> None:
        self.connection.execute(
            update(trials).where(self._is(number)).values(revision=self.next_revision(), **values)
        )


def _zeros(table: Table) -> dict[str, Any]:
    """A zero for every number and flag that a row must have."""
    return {
        column.name: column.type.python_type(0)
        for column in table.c
        if not (column.nullable or column.primary_key or column.foreign_keys)
        and column.type.python_type in (bool, int, float)
    }


def run_through(page: Page, numbers: Iterable[int], *, epochs: int = 10) -> None:
    """Whole trials of one run: begun, reported and complete, the better the higher the number."""
    for number in numbers:
        page.add(number, config={**CONFIG, "learning_rate": 1e-3 * (1 + number % 50)})
        page.start(number)
        page.report(number, {epoch: number + epoch / 100 for epoch in range(1, epochs + 1)})
        metrics = {METRIC: number + 0.1, "test_accuracy": number / 2}
        page.end(number, value=number + 0.1, kept_epoch=epochs, metrics=metrics)
