"""The only code that changes trials and runs; every change takes the study's next revision.

Each transition is one guarded UPDATE.  Where the guard finds that somebody else was first, the
method raises `StaleAttempt` and the caller's transaction changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.samplers.base import Suggestion
from search.seeds import derive
from search.spec import StudySpec
from service.errors import StaleAttempt
from service.lifecycle import (
    OPEN_STUDY,
    OPEN_TRIAL,
    FailReason,
    RunEnd,
    RunState,
    StudyState,
    TrialState,
    study_end,
    trial_end,
)
from service.store.rows import RunRow, StudyRow, TrialRow
from service.store.session import Transaction


class Ledger:
    """One study, locked by `tx` until its end."""

    def __init__(self, tx: Transaction, study_id: int) -> None:
        self._tx = tx
        self.study = tx.studies.lock(study_id)
        self.spec = StudySpec.model_validate(self.study.spec)

    def _next_revision(self) -> int:
        self.study.revision += 1
        return self.study.revision

    # ---- the study itself

    def set_study_state(self, state: StudyState, *, reason: str | None = None) -> None:
        self.study.state = state
        self.study.reason = reason
        self.study.state_revision = self._next_revision()
        if state not in OPEN_STUDY:
            self.study.finished_at = self._tx.now

    def stop(self) -> None:
        """No new trials: those waiting are cancelled, those running finish."""
        self.study.stopping = True
        self.study.state_revision = self._next_revision()
        for trial in self._tx.trials.page(self.study.id, state=TrialState.WAITING):
            self._cancel_runs(self._tx.runs.of_trials([trial.id])[trial.id])
        self._end_study_if_done()

    def cancel(self) -> None:
        """Every open run fails as cancelled; a result that arrives later is refused."""
        self.set_study_state(StudyState.CANCELLED)
        self._cancel_runs(self._tx.runs.open_of(self.study.id))

    def _cancel_runs(self, open_runs: Sequence[RunRow]) -> None:
        for run in open_runs:
            self._end_run(run, RunState.FAIL, reason=FailReason.CANCELLED)

    # ---- trials

    @property
    def may_create(self) -> bool:
        """Whether the plan has room for another trial."""
        study = self.study
        in_time = study.deadline_at is None or self._tx.now < study.deadline_at
        return not study.stopping and in_time and study.next_number < num_planned(study, self.spec)

    def create_trials(
        self,
        suggestions: Sequence[Suggestion],
        *,
        sampler: str | None,
        seen_revision: int | None,
    ) -> list[TrialRow]:
        """Add trials and their planned runs; `sampler` is None for trials a person enqueued."""
        numbers = range(self.study.next_number, self.study.next_number + len(suggestions))
        assert [s.number for s in suggestions] == list(numbers), "trial numbers leave no gap"
        common = {
            "study_id": self.study.id,
            "state": TrialState.WAITING.value,
            "origin": "enqueued" if sampler is None else "sampler",
            "sampler": sampler,
            "seen_revision": seen_revision,
            "created_at": self._tx.now,
        }
        rows = []
        for suggestion in suggestions:
            revision = self._next_revision()
            rows.append(
                {
                    **common,
                    "number": suggestion.number,
                    "config": suggestion.config,
                    "grid_cell": suggestion.grid_cell,
                    "sampler_seed": None if sampler is None else suggestion.seed,
                    "revision": revision,
                    "created_revision": revision,
                }
            )
        trial_ids = self._tx.trials.insert(rows)
        self._tx.runs.insert(
            [
                {
                    "study_id": self.study.id,
                    "trial_id": trial_id,
                    "replicate": replicate,
                    "seed": run_seed(self.spec, replicate),
                    "state": RunState.WAITING.value,
                    "attempt": 0,
                    "charges": 0,
                    "device_seconds": 0.0,
                    "revision": self._next_revision(),
                    "created_at": self._tx.now,
                }
                for trial_id in trial_ids
                for replicate in range(self.spec.replicates)
            ]
        )
        self.study.next_number += len(suggestions)
        self.study.num_enqueued += len(suggestions) if sampler is None else 0
        self.study.num_open += len(suggestions)
        return [self._tx.trials.get(trial_id) for trial_id in trial_ids]

    # ---- runs

    def hand_out(
        self,
        run: RunRow,
        *,
        worker_id: str | None = None,
        device: str | None = None,
        data_fingerprint: str | None = None,
        lease_seconds: float | None = None,
    ) -> RunRow:
        """WAITING → RUNNING, one attempt more; the trial and the study begin with their first run.

        Raises:
            StaleAttempt: the run was handed to somebody else.
        """
        self._move_run(
            run,
            RunState.RUNNING,
            attempt=run.attempt + 1,
            worker_id=worker_id,
            device=device,
            data_fingerprint=data_fingerprint,
            lease_seconds=lease_seconds,
            lease_expires_at=None if lease_seconds is None else self._tx.now + lease_seconds,
            started_at=self._tx.now,
        )
        if not self._tx.trials.transition(
            run.trial_id,
            TrialState.WAITING,
            TrialState.RUNNING,
            started_at=self._tx.now,
            revision=self._next_revision(),
        ):
            self._tx.trials.touch(run.trial_id, self._next_revision())
        if self.study.state is StudyState.QUEUED:
            self.set_study_state(StudyState.RUNNING)
            self.study.started_at = self._tx.now
            if self.spec.budget.seconds is not None:
                self.study.deadline_at = self._tx.now + self.spec.budget.seconds
        return self._tx.runs.get([run.id])[run.id]

    def record(self, run: RunRow, reports: Mapping[int, Mapping[str, float]]) -> None:
        """Take the metrics of finished epochs; an epoch known already is left as it is."""
        known = self._tx.runs.reported_epochs(run.id)
        new = {epoch: metrics for epoch, metrics in sorted(reports.items()) if epoch not in known}
        if not new:
            return
        self._tx.runs.insert_reports(
            [
                {
                    "run_id": run.id,
                    "study_id": self.study.id,
                    "epoch": epoch,
                    "attempt": run.attempt,
                    "metrics": dict(metrics),
                    "revision": self._next_revision(),
                    "reported_at": self._tx.now,
                }
                for epoch, metrics in new.items()
            ]
        )
        self._tx.trials.touch(run.trial_id, self._next_revision())

    def set_program(self, run: RunRow, program: str) -> None:
        """Note the program that trains the run; it keeps it for life."""
        self._tx.runs.set_program(run, program, revision=self._next_revision())
        self._tx.trials.touch(run.trial_id, self._next_revision())

    def complete(
        self,
        run: RunRow,
        *,
        value: float | None,
        state: RunState = RunState.COMPLETE,
        kept_epoch: int | None = None,
        metrics: Mapping[str, float],
        pruned_by_version: int | None = None,
        device_seconds: float = 0.0,
    ) -> None:
        """RUNNING → COMPLETE or PRUNED, the latter by the rules of some version or by a wish."""
        self._end_run(
            run,
            state,
            value=value,
            kept_epoch=kept_epoch,
            metrics=dict(metrics),
            pruned_by_version=pruned_by_version,
            device_seconds=device_seconds,
        )

    def fail(
        self,
        run: RunRow,
        reason: FailReason,
        *,
        error: str | None = None,
        log_tail: str | None = None,
        device_seconds: float = 0.0,
    ) -> None:
        """RUNNING → FAIL, for good."""
        self._end_run(
            run,
            RunState.FAIL,
            reason=reason,
            error=error,
            log_tail=log_tail,
            device_seconds=device_seconds,
        )

    def charge(
        self,
        run: RunRow,
        reason: FailReason,
        *,
        max_charges: int,
        error: str | None = None,
        log_tail: str | None = None,
        device_seconds: float = 0.0,
    ) -> None:
        """A failure blamed on the run alone: it waits for another try, or fails for good."""
        charges = run.charges + 1
        if charges >= max_charges:
            self._end_run(
                run,
                RunState.FAIL,
                reason=reason,
                error=error,
                log_tail=log_tail,
                charges=charges,
                device_seconds=device_seconds,
            )
        else:
            self.hand_back(
                run, charges=charges, error=error, log_tail=log_tail, device_seconds=device_seconds
            )

    def hand_back(self, run: RunRow, *, device_seconds: float = 0.0, **values: Any) -> None:
        """RUNNING → WAITING, uncharged unless `values` say otherwise.

        Without a checkpoint the run starts again from nothing: its epochs are forgotten, and so is
        its program, since nothing made by it is left.
        """
        self._tx.runs.delete_reports(run.id)
        self._account(device_seconds)
        self._move_run(
            run,
            RunState.WAITING,
            worker_id=None,
            device=None,
            program=None,
            lease_expires_at=None,
            started_at=None,
            device_seconds=run.device_seconds + device_seconds,
            **values,
        )
        self._tx.trials.touch(run.trial_id, self._next_revision())

    def _end_run(
        self, run: RunRow, state: RunState, *, device_seconds: float = 0.0, **values: Any
    ) -> None:
        self._account(device_seconds)
        self._move_run(
            run,
            state,
            finished_at=self._tx.now,
            lease_expires_at=None,
            device_seconds=run.device_seconds + device_seconds,
            **values,
        )
        self._end_trial_if_done(run.trial_id)

    def _move_run(self, run: RunRow, state: RunState, **values: Any) -> None:
        if not self._tx.runs.transition(run, state, revision=self._next_revision(), **values):
            raise StaleAttempt(f"run {run.id} was changed by somebody else meanwhile")

    def _account(self, device_seconds: float) -> None:
        self.study.device_seconds += device_seconds
        self.study.virtual_seconds += device_seconds

    def _end_trial_if_done(self, trial_id: int) -> None:
        runs = self._tx.runs.of_trials([trial_id])[trial_id]
        end = trial_end([RunEnd(run.state, run.reason, run.value) for run in runs])
        if end is None:
            self._tx.trials.touch(trial_id, self._next_revision())
            return
        state, reason, value = end
        trial = self._tx.trials.get(trial_id)
        assert trial.state in OPEN_TRIAL, "a trial ends once"
        revision = self._next_revision()
        moved = self._tx.trials.transition(
            trial_id,
            trial.state,
            state,
            reason=reason,
            value=value,
            finished_at=self._tx.now,
            finished_revision=revision,
            revision=revision,
        )
        assert moved, "the study's lock guards its trials"
        self.study.num_open -= 1
        self._end_study_if_done()

    def _end_study_if_done(self) -> None:
        study = self.study
        if study.state not in OPEN_STUDY or study.num_open > 0:
            return
        num_failed = self._tx.trials.num_failed(study.id)
        state = study_end(
            num_trials_planned=num_planned(study, self.spec),
            num_created=study.next_number,
            num_open=study.num_open,
            num_failed=num_failed,
            no_more=study.stopping,
        )
        if state is not None:
            reason = "every trial failed" if state is StudyState.FAILED else None
            self.set_study_state(state, reason=reason)


def num_planned(study: StudyRow, spec: StudySpec) -> int:
    """How many trials the study has in the end, unless it is stopped.

    Enqueued trials count towards the budget, but no cell of a grid gives way to them.
    """
    extra = study.num_enqueued if spec.sampler.name == "grid" else 0
    return spec.num_trials + extra


def run_seed(spec: StudySpec, replicate: int) -> int:
    """The seed of a run: the same for every trial of the study, so that trials compare in pairs."""
    return derive(spec.sampler.seed, "run", replicate)
