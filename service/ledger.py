"""The only code that changes trials and runs; every change takes the study's next revision.

Many runs are changed at once, each transition guarded by the attempt and state that the run had.
Where a guard finds that somebody else was first, the method raises `StaleAttempt` and the caller's
transaction changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, TypeVar

from ridgeline.search.samplers.base import Suggestion
from ridgeline.search.seeds import derive
from ridgeline.search.spec import StudySpec
from ridgeline.service import metrics
from ridgeline.service.errors import NotFound, StaleAttempt
from ridgeline.service.lifecycle import (
    OPEN_RUN,
    OPEN_STUDY,
    OPEN_TRIAL,
    SERVABLE_STUDY,
    FailReason,
    RunEnd,
    RunState,
    StudyState,
    TrialState,
    study_end,
    trial_end,
)
from ridgeline.service.outcomes import CANCELLED, News, by_trial, run_after
from ridgeline.service.store.rows import CheckpointRow, RunOfTrial, RunRow, StudyRow
from ridgeline.service.store.session import Transaction
from ridgeline.service.winners import Repeat, next_repeats

MAX_NEWS = 3_000
"""Runs and epochs of which one transaction takes news: in a large call others write in between."""


MAX_CANCELLED = 250
"""Runs that one transaction cancels: of a large study others write in between."""


class _Told(Protocol):
    @property
    def epochs(self) -> Sized: ...


_T = TypeVar("_T", bound=_Told)


def in_parts(told: Iterable[_T]) -> Iterator[list[_T]]:
    """News of runs in their order, in parts for one transaction each: at least one, maybe empty.

    Whoever may be told more than `MAX_NEWS` epochs of one run cuts it into pieces before.
    """
    part: list[_T] = []
    size = 0
    for one in told:
        size += 1 + len(one.epochs)
        if part and size > MAX_NEWS:
            yield part
            part, size = [], 1 + len(one.epochs)
        part.append(one)
    yield part


class Ledger:
    """One study, locked by `tx` until its end."""

    def __init__(self, tx: Transaction, study_id: int) -> None:
        self._tx = tx
        self.study = tx.studies.lock(study_id)

    @classmethod
    def of_found(cls, tx: Transaction, study_id: int) -> Ledger | None:
        """Of a study that was found before; None where it has been deleted since."""
        try:
            return cls(tx, study_id)
        except NotFound:
            return None

    @property
    def spec(self) -> StudySpec:
        return self.study.spec

    def _next_revision(self) -> int:
        self.study.revision += 1
        return self.study.revision

    # ---- the study itself

    def set_study_state(self, state: StudyState, *, reason: str | None = None) -> None:
        """Enter a state, and tell whoever may start runs now or waits in vain."""
        self._enter(state, reason)
        if state in SERVABLE_STUDY or self.spec.external:
            self._offer(1)

    def _enter(self, state: StudyState, reason: str | None) -> None:
        self.study.state = state
        self.study.reason = reason
        self.study.state_revision = self._next_revision()
        if state not in OPEN_STUDY:
            self.study.finished_at = self._tx.now

    def _offer(self, num_runs: int) -> None:
        audience = self.study.name if self.spec.external else None
        self._tx.offer(self.study.id, audience, num_runs)

    def set_archived(self, archived: bool) -> None:
        """Have lists leave the study out, or show it again."""
        self.study.archived = archived
        self.study.state_revision = self._next_revision()

    def stop(self) -> None:
        """No new trials: `wind_up` cancels those that wait, those that run finish."""
        self.study.stopping = True
        self.study.state_revision = self._next_revision()

    def wind_up(self) -> bool:
        """Cancel what a study still has open that has ended, or what waits in one that is to stop.

        At most `MAX_CANCELLED` runs, or those of one trial: call it, each time in a transaction of
        its own, until it returns True.  From the first on no other run of the study starts, and no
        result is taken of one that has ended.
        """
        study = self.study
        if study.state not in OPEN_STUDY:
            open_runs = self._tx.runs.open_of(study.id, limit=MAX_CANCELLED)
            is_done = len(open_runs) < MAX_CANCELLED
        elif study.stopping:
            num_trials = max(1, MAX_CANCELLED // self.spec.num_runs)
            waiting = self._tx.trials.page(study.id, state=TrialState.WAITING, limit=num_trials)
            runs_of = self._tx.runs.of_trials([trial.id for trial in waiting])
            open_runs = [run for of_one in runs_of.values() for run in of_one]
            is_done = len(waiting) < num_trials
        else:
            return True
        self.take([News(run, outcome=CANCELLED) for run in open_runs])
        self._end_study_if_done()
        return is_done

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
        retried: Sequence[int | None] | None = None,
    ) -> list[int]:
        """Add trials and their planned runs; `sampler` is None where none was asked.

        Args:
            retried: of each, the number of the failed trial that it tries again.

        Returns the ids of the trials, in the order given.
        """
        numbers = range(self.study.next_number, self.study.next_number + len(suggestions))
        assert [s.number for s in suggestions] == list(numbers), "trial numbers leave no gap"
        common = {
            "study_id": self.study.id,
            "state": TrialState.WAITING.value,
            "sampler": sampler,
            "seen_revision": seen_revision,
            "created_at": self._tx.now,
        }
        rows = []
        retried = [None] * len(suggestions) if retried is None else retried
        for suggestion, retry_of in zip(suggestions, retried, strict=True):
            revision = self._next_revision()
            rows.append(
                {
                    **common,
                    "number": suggestion.number,
                    "config": suggestion.config,
                    "origin": "sampler" if _is_chosen(suggestion, sampler) else "enqueued",
                    "given": None if suggestion.given is None else list(suggestion.given),
                    "grid_cell": suggestion.grid_cell,
                    "retry_of": retry_of,
                    "sampler_seed": None if sampler is None else suggestion.seed,
                    "revision": revision,
                    "created_revision": revision,
                }
            )
        self.study.num_enqueued += sum(not _is_chosen(one, sampler) for one in suggestions)
        return self._insert(rows, [range(self.spec.num_runs)] * len(rows))

    def _repeat(self, repeats: Sequence[Repeat]) -> None:
        """Add trials that train others again."""
        rows = []
        for number, one in enumerate(repeats, start=self.study.next_number):
            revision = self._next_revision()
            rows.append(
                {
                    "study_id": self.study.id,
                    "number": number,
                    "state": TrialState.WAITING.value,
                    "config": one.config,
                    "origin": one.origin,
                    "repeats": one.number,
                    "created_at": self._tx.now,
                    "revision": revision,
                    "created_revision": revision,
                }
            )
        self.study.num_repeats += len(repeats)
        self._insert(rows, [one.replicates for one in repeats])

    def _insert(self, rows: Sequence[Mapping[str, Any]], replicates: Sequence[range]) -> list[int]:
        """Add trials with the runs that each is to have; the ids of the trials."""
        trial_ids = self._tx.trials.insert(self.study.id, rows)
        seeds = {
            replicate: run_seed(self.spec, replicate)
            for replicate in {number for of_one in replicates for number in of_one}
        }
        runs = [
            {
                "study_id": self.study.id,
                "trial_id": trial_id,
                "replicate": replicate,
                "seed": seeds[replicate],
                "state": RunState.WAITING.value,
                "attempt": 0,
                "charges": 0,
                "device_seconds": 0.0,
                "revision": self._next_revision(),
                "created_at": self._tx.now,
            }
            for trial_id, of_one in zip(trial_ids, replicates, strict=True)
            for replicate in of_one
        ]
        self._offer(len(runs))
        self._tx.runs.insert(runs)
        self.study.next_number += len(rows)
        self.study.num_open += len(rows)
        return trial_ids

    # ---- runs

    def hand_out(
        self,
        waiting: Sequence[RunOfTrial],
        devices: Sequence[str | None],
        *,
        worker_id: str | None = None,
        client_id: str | None = None,
        data_fingerprint: str | None = None,
        lease_seconds: float | None = None,
    ) -> list[RunOfTrial]:
        """WAITING → RUNNING, one attempt more; trials and the study begin with their first run.

        Args:
            devices: of each run.

        Raises:
            StaleAttempt: one of the runs was handed to somebody else.
        """
        now = self._tx.now
        handed: list[RunOfTrial] = []
        begun: dict[int, dict[str, Any]] = {}
        touched: dict[int, int] = {}
        for one, device in zip(waiting, devices, strict=True):
            run = one.run._replace(
                state=RunState.RUNNING,
                attempt=one.run.attempt + 1,
                worker_id=worker_id,
                device=device,
                client_id=client_id,
                data_fingerprint=data_fingerprint,
                lease_seconds=lease_seconds,
                lease_expires_at=None if lease_seconds is None else now + lease_seconds,
                started_at=now,
                revision=self._next_revision(),
            )
            handed.append(one._replace(run=run, trial_state=TrialState.RUNNING))
            revision = self._next_revision()
            if one.trial_state is TrialState.WAITING:
                values = {"state": TrialState.RUNNING, "started_at": now, "revision": revision}
                begun[run.trial_id] = values
            else:
                touched[run.trial_id] = revision
            if self.study.state is StudyState.QUEUED:
                self._begin()
        self._offer(-len(handed))
        self._change_runs([(old.run, new.run) for old, new in zip(waiting, handed, strict=True)])
        self._move_trials(TrialState.WAITING, begun)
        self._tx.trials.touch(touched)
        return handed

    def _begin(self) -> None:
        self._enter(StudyState.RUNNING, None)
        if self.study.started_at is not None:
            return  # it goes on after an end
        self.study.started_at = self._tx.now
        if self.spec.budget.seconds is not None:
            self.set_deadline(self.spec.budget.seconds)

    def set_deadline(self, seconds: float) -> None:
        """Let the study's time be up so many seconds from now.

        The clock may have been set since this transaction read it, so the timekeeper has the last
        word: the study is not told to stop before.
        """
        self.study.deadline_at = self._tx.now + seconds
        self.study.ungranted_seconds = seconds

    def extend_deadline(self, seconds: float) -> None:
        """Let the study's time be up so much later; where it is up already, so long from now."""
        study = self.study
        if study.deadline_at is None or study.deadline_at <= self._tx.now:
            self.set_deadline(seconds)
            return
        study.deadline_at += seconds
        if study.ungranted_seconds is not None:
            study.ungranted_seconds += seconds

    def take(self, news: Sequence[News]) -> None:
        """Take what is told of open runs, each named once; their trials and the study may end.

        Where one of them tells that no run of the study can be trained, the study fails; what else
        it has open, `wind_up` cancels.  An epoch that is known already is left as it is.  A run
        that waits again keeps its epochs up to its newest checkpoint.

        Raises:
            StaleAttempt: one of the runs has changed since it was read.
        """
        failure = next((why for one in news if (why := one.study_fails) is not None), None)
        if failure is not None:
            self.set_study_state(StudyState.FAILED, reason=failure)
        self._forget_what_was_before(news)
        checkpoints = self._tx.artifacts.newest_checkpoints(
            [one.run.id for one in news if one.waits_again]
        )
        known = self._known_epochs(news)
        runs_of = self._runs_of_ending_trials(news)
        reports: list[dict[str, Any]] = []
        changes: list[tuple[RunRow, RunRow]] = []
        touched: dict[int, int] = {}
        ended: dict[int, dict[str, Any]] = {}
        for trial_id, of_trial in by_trial(news).items():
            revision_before = self.study.revision
            its_runs = runs_of.get(trial_id)
            for one in of_trial:
                reports += self._new_reports(one, known)
                after = self._after(one, has_checkpoint=one.run.id in checkpoints)
                if after is not one.run:
                    changes.append((one.run, after))
                if its_runs is not None:
                    its_runs[after.id] = after
            if self.study.revision == revision_before:
                continue  # it was all known
            revision = self._next_revision()
            ends = [RunEnd(r.state, r.reason, r.value) for r in (its_runs or {}).values()]
            end = trial_end(ends) if ends else None
            if end is None:
                touched[trial_id] = revision
            else:
                ended[trial_id] = self._ended_trial(*end, revision=revision)
        waiting = [run.id for run, after in changes if after.state is RunState.WAITING]
        self._offer(len(waiting))
        self._forget_epochs(waiting, checkpoints)
        if not self.spec.external:
            over = [run.id for run, after in changes if run.attempt and after.state not in OPEN_RUN]
            self._tx.artifacts.doom_of_runs(over)
        self._tx.runs.insert_reports(reports)
        self._tx.count(metrics.REPORTS_RECEIVED, len(reports))
        num_charges = sum(after.charges - run.charges for run, after in changes)
        self._tx.count(metrics.CHARGES, num_charges)
        self._change_runs(changes)
        self._tx.trials.touch(touched)
        self._end_trials(ended)

    def _forget_what_was_before(self, news: Sequence[News]) -> None:
        """Forget the epochs and checkpoints of runs that have begun anew, in another program."""
        begun_anew = [one.run.id for one in news if one.begins_anew]
        self._tx.runs.delete_reports(begun_anew)
        self._tx.artifacts.doom_of_runs(begun_anew)

    def _forget_epochs(
        self, waiting: Sequence[int], checkpoints: Mapping[int, CheckpointRow]
    ) -> None:
        """Forget the epochs of runs that wait again, but for those up to their checkpoints."""
        by_epoch: dict[int, list[int]] = defaultdict(list)
        for run_id in waiting:
            by_epoch[checkpoints[run_id].epoch if run_id in checkpoints else 0].append(run_id)
        for epoch, run_ids in by_epoch.items():
            self._tx.runs.delete_reports(run_ids, above_epoch=epoch)

    def _known_epochs(self, news: Sequence[News]) -> set[tuple[int, int]]:
        """(run, epoch) of the reports among `news` that are known already, and of others."""
        epochs = [epoch for one in news for epoch in one.epochs]
        if not epochs:
            return set()
        run_ids = [one.run.id for one in news if one.epochs]
        return self._tx.runs.reported_epochs(run_ids, min(epochs), max(epochs))

    def _runs_of_ending_trials(self, news: Sequence[News]) -> dict[int, dict[int, RunRow]]:
        """The runs, by trial and id, of the trials of which a run ends."""
        ending = [one.run for one in news if one.outcome is not None]
        if self.spec.num_runs == 1 and self.study.num_repeats == 0:
            return {run.trial_id: {run.id: run} for run in ending}
        found = self._tx.runs.of_trials(sorted({run.trial_id for run in ending}))
        return {trial_id: {run.id: run for run in runs} for trial_id, runs in found.items()}

    def _new_reports(
        self, news: News, known: Container[tuple[int, int]]
    ) -> Iterator[dict[str, Any]]:
        run = news.run
        if news.waits_again:
            return  # it tells them again; those up to its checkpoint are known
        for epoch, measured in sorted(news.epochs.items()):
            if (run.id, epoch) not in known:
                yield {
                    "run_id": run.id,
                    "study_id": self.study.id,
                    "epoch": epoch,
                    "attempt": run.attempt,
                    "metrics": measured,
                    "revision": self._next_revision(),
                    "reported_at": self._tx.now,
                }

    def _after(self, news: News, *, has_checkpoint: bool) -> RunRow:
        """The run after the news; the same row where they change nothing of it."""
        if news.outcome is None and news.program is None:
            return news.run
        if news.outcome is not None:
            self.study.device_seconds += news.outcome.device_seconds
            self.study.virtual_seconds += news.outcome.device_seconds
        return run_after(
            news,
            now=self._tx.now,
            revision=self._next_revision(),
            has_checkpoint=has_checkpoint,
        )

    def _change_runs(self, changes: Sequence[tuple[RunRow, RunRow]]) -> None:
        if not self._tx.runs.change(changes):
            raise StaleAttempt("a run was changed by somebody else meanwhile")

    def _ended_trial(
        self, state: TrialState, reason: FailReason | None, value: float | None, *, revision: int
    ) -> dict[str, Any]:
        return {
            "state": state,
            "reason": reason,
            "value": value,
            "finished_at": self._tx.now,
            "finished_revision": revision,
            "revision": revision,
        }

    def _end_trials(self, ended: Mapping[int, dict[str, Any]]) -> None:
        states = self._tx.trials.states(list(ended))
        for source in OPEN_TRIAL:
            self._move_trials(source, {i: v for i, v in ended.items() if states[i] is source})
        assert OPEN_TRIAL.issuperset(states.values()), "a trial ends once"
        for values in ended.values():
            self._tx.count(metrics.TRIALS_ENDED.labels(values["state"], values["reason"] or ""))
        self.study.num_open -= len(ended)
        if self.spec.external:  # a program that ends a trial asks for the next in another call
            self._offer(len(ended))
        if ended:
            self._end_study_if_done()

    def _move_trials(self, source: TrialState, changes: Mapping[int, dict[str, Any]]) -> None:
        moved = self._tx.trials.transition(source, changes)
        assert moved, "the study's lock guards its trials"

    def _end_study_if_done(self) -> None:
        study = self.study
        if study.state not in OPEN_STUDY or study.num_open > 0:
            return
        num_failed = self._tx.trials.num_failed(study.id)
        state = study_end(
            num_trials_planned=num_planned(study, self.spec),
            num_created=study.next_number,
            num_open=study.num_open,
            num_failed=sum(num_failed.values()),
            no_more=study.stopping,
        )
        if state is StudyState.COMPLETED and not study.stopping:
            repeats = next_repeats(self._tx.trials, study.id, self.spec)
            if repeats:
                self._repeat(repeats)
                return
        if state is not None:
            reason = None
            if state is StudyState.FAILED:
                reasons = [f"{n} {its.replace('_', ' ')}" for its, n in num_failed.items()]
                reason = f"every trial failed; {', '.join(reasons)}"
            self.set_study_state(state, reason=reason)


def _is_chosen(suggestion: Suggestion, sampler: str | None) -> bool:
    """Whether a trial is the sampler's own, and not one that a person enqueued."""
    return sampler is not None and suggestion.given is None


def num_planned(study: StudyRow, spec: StudySpec) -> int:
    """How many trials the study has in the end, unless it is stopped.

    Enqueued trials count towards the budget, but no cell of a grid gives way to them.  Those that
    train others again come on top; how many there will be, only the values tell.
    """
    extra = study.num_enqueued if spec.sampler.name == "grid" else 0
    return spec.num_trials + extra + study.num_repeats


def run_seed(spec: StudySpec, replicate: int) -> int:
    """The seed of a run: the same for every trial of the study, so that trials compare in pairs."""
    return derive(spec.sampler.seed, "run", replicate)
