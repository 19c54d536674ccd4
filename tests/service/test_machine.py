"""Any order of events: no trial is lost, none counted twice, and Optuna's tables agree.

Workers come and go, answers get lost, runs crash and go on from checkpoints, studies are paused,
cancelled and extended, the clock jumps; plain dictionaries remember what the api has taken.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from ridgeline.search.ranges import FloatParameter
from ridgeline.service import checkpoints, extending, projection, sampling, studies, workers
from ridgeline.service.artifacts.base import Content
from ridgeline.service.artifacts.folder import FolderArtifacts
from ridgeline.service.checkpoints import Holder
from ridgeline.service.errors import Conflict, StaleAttempt
from ridgeline.service.ledger import num_planned
from ridgeline.service.lifecycle import OPEN_RUN, OPEN_STUDY, RunState, StudyState
from ridgeline.service.protocol import RunEnded, RunOrder, RunReport, SyncRequest
from ridgeline.service.resources import ExtendRequest, RetryRequest
from ridgeline.service.store.rows import RunRow
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.winners import next_repeats
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, FakeWorker, ended, post, spec, value_of

OUTCOMES = [
    *("complete", "complete", "complete", "pruned", "pruned"),
    *("diverged", "crashed", "out_of_memory", "timeout", "released"),
]
FINAL = ("complete", "pruned", "diverged")
AGAIN = [{}, {"racing": {"seeds": 3, "leaders": 2}, "fresh_seeds": 2}]
PRUNERS = [None, {"name": "median", "startup": 1}, {"name": "halving", "eta": 2}]


class Service(RuleBasedStateMachine):
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="rl-machine-")
        path = Path(self.directory.name) / "test.db"
        shutil.copy(self.template, path)
        self.clock = ManualClock()
        self.store = Store(f"sqlite:///{path}", clock=self.clock, project=projection.project)
        self.workers: list[FakeWorker] = []
        self.names: list[str] = []
        self.taken: dict[int, str] = {}
        """How each run ended, as its worker was told by not being refused."""
        self.thresholds: dict[tuple[str, int], dict[int, float]] = {}
        """Pruning rules by study and version, as they were sent."""
        self.artifacts = FolderArtifacts(Path(self.directory.name) / "artifacts")
        self.saved: dict[int, tuple[str, int]] = {}
        """By run, the program and the epoch of the newest checkpoint that was taken."""

    def teardown(self) -> None:
        if self.names:
            self.finish()
        self.store.close()
        self.directory.cleanup()

    # ---- what may happen

    @precondition(lambda self: len(self.names) < 3)
    @rule(
        replicates=st.integers(1, 2),
        reproducible=st.booleans(),
        priority=st.integers(0, 1),
        pruner=st.sampled_from(PRUNERS),
        again=st.sampled_from(AGAIN),
    )
    def submit(
        self,
        replicates: int,
        reproducible: bool,
        priority: int,
        pruner: dict[str, Any] | None,
        again: dict[str, Any],
    ) -> None:
        name = f"s{len(self.names)}"
        self.names.append(name)
        post(
            self.store,
            spec(
                name,
                replicates=replicates,
                reproducible=reproducible and pruner is None,
                pruner=pruner,
                priority=priority,
                **again,
                budget={"trials": 4, "max_parallel": 3},
            ),
        )

    @precondition(lambda self: len(self.workers) < 3)
    @rule(num_slots=st.integers(1, 3))
    def start_worker(self, num_slots: int) -> None:
        self.workers.append(FakeWorker(self.store, num_slots=num_slots))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), answer_is_lost=st.booleans(), said_twice=st.booleans())
    def sync(self, data: st.DataObject, answer_is_lost: bool, said_twice: bool) -> None:
        worker = data.draw(st.sampled_from(self.workers), label="worker")
        orders = list(worker.held.values())
        outcomes = data.draw(
            st.lists(st.sampled_from([None, *OUTCOMES]), min_size=len(orders), max_size=len(orders))
        )
        ends = [end(o, outcome) for o, outcome in zip(orders, outcomes, strict=True) if outcome]
        reports = [report(o) for o in orders if data.draw(st.booleans())]
        statement = worker.statement(ended=ends, reports=reports, rules=worker.versions)
        try:
            answer = worker.send(statement)
            if said_twice:
                again = worker.send(statement)
                assert {(r.run, r.attempt) for r in answer.refused} <= {
                    (r.run, r.attempt) for r in again.refused
                }
                rest = {"start": again.start, "stop": again.stop, "rules": again.rules}
                answer = answer.model_copy(update=rest)
        except Conflict:  # it was given up: a real worker registers again, with nothing
            self.workers.remove(worker)
            return
        self.note(statement, {(r.run, r.attempt) for r in answer.refused})
        if answer_is_lost:
            # It goes on saying what it said; an end that was taken is refused or repeated.
            worker.held = {k: o for k, o in worker.held.items() if k not in _keys(statement)}
        else:
            worker.hear(statement, answer)
        for rules in answer.rules:
            key = rules.study, rules.version
            assert self.thresholds.setdefault(key, rules.thresholds) == rules.thresholds
            assert rules.version > statement.rules.get(rules.study, 0)

    def note(self, statement: SyncRequest, refused: set[tuple[int, int]]) -> None:
        for end in statement.ended:
            if (end.run, end.attempt) not in refused and end.outcome in FINAL:
                assert end.run not in self.taken, "a run ended twice"
                self.taken[end.run] = end.outcome

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(data=st.data(), epoch=st.integers(1, 4), program=st.sampled_from(["p", "p", "p", "q"]))
    def save(self, data: st.DataObject, epoch: int, program: str) -> None:
        """A run passes epochs, in one program or another, and its worker sends a checkpoint."""
        worker = data.draw(st.sampled_from([one for one in self.workers if one.held]))
        order = data.draw(st.sampled_from(list(worker.held.values())))
        held = [{"run": run, "attempt": n, "device": "cpu:0"} for run, n in worker.held]
        for one in held:
            if one["run"] == order.run:
                one["program"] = program
        reports = [report(order, number) for number in range(1, epoch + 1)]
        statement = worker.statement(held=held, reports=reports, free_slots={})
        try:
            answer = worker.send(statement)
        except Conflict:
            self.workers.remove(worker)
            return
        worker.hear(statement, answer)
        holder = Holder(worker.id, order.run, order.attempt)
        content = Content.of(f"{order.run} {program} {epoch}".encode())
        is_refused = any(one.run == order.run for one in answer.refused)
        if not is_refused and self.saved.get(order.run, (program,))[0] != program:
            del self.saved[order.run]  # it has begun anew
        try:
            row, is_there = checkpoints.announce(
                self.store, holder, epoch=epoch, program=program, content=content
            )
            if not is_there:
                chunks = [f"{order.run} {program} {epoch}".encode()]
                checkpoints.keep(self.store, self.artifacts, holder, row, chunks)
        except StaleAttempt:
            assert is_refused
            return
        assert not is_refused
        _, newest_epoch = self.saved.get(order.run, (program, 0))
        self.saved[order.run] = program, max(epoch, newest_epoch)

    @rule()
    def sweep(self) -> None:
        checkpoints.sweep(self.store, self.artifacts)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        try:
            worker.send(worker.statement(leaving=True))
        except Conflict:
            assert worker.id not in self.live()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def kill_worker(self, data: st.DataObject) -> None:
        self.workers.remove(data.draw(st.sampled_from(self.workers)))

    @rule(seconds=st.sampled_from([1.0, 20.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        workers.expire(self.store)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), verb=st.sampled_from(["pause", "resume", "resume", "stop", "cancel"]))
    def tell(self, data: st.DataObject, verb: studies.Verb) -> None:
        name = data.draw(st.sampled_from(self.names))
        try:
            with self.store.transaction() as tx:
                studies.apply_verb(tx, name, verb)
        except Conflict:
            with self.store.reading() as tx:
                assert studies.find(tx, name).state not in OPEN_STUDY

    @precondition(lambda self: self.names)
    @rule(data=st.data(), num_trials=st.sampled_from([0, 1, 2]), grows=st.booleans())
    def go_on(self, data: st.DataObject, num_trials: int, grows: bool) -> None:
        """Extend a study, its space maybe too, or try its failures again."""
        name = data.draw(st.sampled_from(self.names))
        try:
            with self.store.transaction() as tx:
                if num_trials == 0:
                    extending.retry(tx, name, RetryRequest(), max_open=1_000)
                else:
                    request = ExtendRequest(trials=num_trials)
                    rate = studies.find(tx, name).spec.space["learning_rate"]
                    assert isinstance(rate, FloatParameter)
                    can_grow = grows and rate.high < 1
                    space = {"learning_rate": {"high": 2 * rate.high}} if can_grow else {}
                    extending.extend(tx, name, request, space=space, max_open=1_000)
        except Conflict:
            with self.store.reading() as tx:
                study = studies.find(tx, name)
                cancelled = study.state is StudyState.CANCELLED
                assert cancelled or study.stopping or study.spec.reproducible

    # ---- what must hold

    def live(self) -> set[str]:
        with self.store.reading() as tx:
            return {worker.id for worker in tx.workers.all(live_only=True)}

    @invariant()
    def the_books_balance(self) -> None:
        with self.store.reading() as tx:
            for name in self.names:
                study = studies.find(tx, name)
                assert study.projection_error is None
                found = tx.trials.page(study.id)
                runs = tx.runs.of_trials([trial.id for trial in found])
                assert [trial.number for trial in found] == list(range(study.next_number))
                assert study.num_open == sum(t.finished_revision is None for t in found)
                revisions = [t.revision for t in found] + [
                    r.revision for t in found for r in runs[t.id]
                ]
                assert len(set(revisions)) == len(revisions)
                assert max([*revisions, study.state_revision]) <= study.revision
                for trial in found:
                    for run in runs[trial.id]:
                        self.check_run(run)
                        self.check_checkpoints(tx, run)
                self.check_projection(tx.connection, name, found)

    def check_run(self, run: Any) -> None:
        assert run.charges <= SETTINGS.max_charges
        taken = self.taken.get(run.id)
        if taken == "complete":
            assert run.state is RunState.COMPLETE
        elif taken == "pruned":
            assert (run.state, run.pruned_by_version) == (RunState.PRUNED, 1)
        elif taken == "diverged":
            assert (run.state, run.reason) == (RunState.FAIL, "diverged")
        else:
            assert run.state not in (RunState.COMPLETE, RunState.PRUNED)

    def check_checkpoints(self, tx: Transaction, run: RunRow) -> None:
        """The newest is kept while its run is open, with all epochs up to it, and not longer."""
        kept = tx.artifacts.checkpoints([run.id]).get(run.id, [])
        if run.state not in OPEN_RUN or run.id not in self.saved:
            assert kept == []
        else:
            assert (kept[0].program, kept[0].epoch) == self.saved[run.id]
            assert run.program == kept[0].program
        for row in kept:
            self.artifacts.get(row.location, Content(row.num_bytes, row.sha256)).close()
        last_epoch = kept[0].epoch if kept else 0
        known = tx.runs.epochs_of([run.id])[run.id]
        assert known >= set(range(1, last_epoch + 1))
        if run.state is RunState.WAITING:
            assert known == set(range(1, last_epoch + 1))
            assert kept or run.program is None

    def check_projection(self, connection: Any, name: str, found: list[Any]) -> None:
        query = text(
            "SELECT number, t.state, value FROM trials t JOIN studies s USING (study_id) "
            "LEFT JOIN trial_values v USING (trial_id) WHERE study_name = :name ORDER BY number"
        )
        theirs = [tuple(row) for row in connection.execute(query, {"name": name})]
        ours = [(trial.number, trial.state.value, trial.value) for trial in found]
        assert theirs == ours

    def finish(self) -> None:
        """Quiet returns: one good worker trains all that is left."""
        for name in self.names:
            with self.store.transaction() as tx:
                if studies.find(tx, name).state is StudyState.PAUSED:
                    studies.apply_verb(tx, name, "resume")
        self.clock.advance(SETTINGS.lease_seconds + 1)
        workers.expire(self.store)
        self.workers.clear()
        last = FakeWorker(self.store, num_slots=2)
        last.sync()
        while last.held:
            statement = last.statement(ended=[ended(order) for order in last.held.values()])
            answer = last.send(statement)
            assert answer.refused == ()
            self.note(statement, set())
            last.hear(statement, answer)
        with self.store.reading() as tx:
            for name in self.names:
                study = studies.find(tx, name)
                assert study.state not in OPEN_STUDY
                assert study.num_open == 0
                if study.state is StudyState.COMPLETED and not study.stopping:
                    assert study.next_number == num_planned(study, study.spec)
                    assert next_repeats(tx.trials, study.id, study.spec) == []
                assert projection.compare(tx.connection, study.id) == []
                for trial in tx.trials.page(study.id):
                    if trial.seen_revision is not None:
                        again = sampling.rederive(tx, study.id, trial.number)
                        assert again.config == trial.config
        self.the_books_balance()
        while checkpoints.sweep(self.store, self.artifacts):
            pass
        assert list(self.artifacts.keys()) == []
        with self.store.reading() as tx:
            assert tx.artifacts.locations() == set()


def end(order: RunOrder, outcome: str) -> RunEnded:
    if outcome != "pruned":
        return ended(order, outcome)
    return ended(order, outcome, value=value_of(order), kept_epoch=1, rule_version=1)


def report(order: RunOrder, epoch: int = 1) -> RunReport:
    metrics = {"validation_accuracy": value_of(order)}
    return RunReport(run=order.run, attempt=order.attempt, epoch=epoch, metrics=metrics)


def _keys(statement: SyncRequest) -> set[tuple[int, int]]:
    return {(end.run, end.attempt) for end in statement.ended}


@pytest.mark.slow
def test_no_order_of_events_loses_or_doubles_a_trial(migrated_sqlite: Path) -> None:
    Service.template = migrated_sqlite
    run_state_machine_as_test(
        Service,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
