"""Comparisons as the API shows them: what follows from the states and runs of their studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ridgeline.search import comparing, measures
from ridgeline.search.bounds import Bounds
from ridgeline.search.comparison import bounds_of, metric_on_test, scores_by_seed
from ridgeline.search.measures import Measures
from ridgeline.service import comparison_resources as resources
from ridgeline.service import views
from ridgeline.service.lifecycle import (
    OPEN_STUDY,
    RunState,
    StudyState,
    arm_state,
    comparison_state,
)
from ridgeline.service.resources import BestTrial, Study
from ridgeline.service.store.rows import ArmStudyRow, ComparisonRow, RunRow, StudyRow, TrialRow
from ridgeline.service.store.session import Transaction

PAUSED = "paused; resume it to go on"


@dataclass(frozen=True)
class ArmRows:
    """An arm of a comparison and its studies.

    Attributes:
        num_seen: trials that the search had when its winner was last looked for.
        winner: the number of the trial of the search that `fresh` trains again.
        fresh: for the newest winner that the arm has had.
    """

    name: str
    search: StudyRow
    num_seen: int | None
    winner: int | None = None
    fresh: StudyRow | None = None

    @property
    def is_settled(self) -> bool:
        return self.search.state not in OPEN_STUDY and self.num_seen == self.search.next_number

    @property
    def is_left_out(self) -> bool:
        """Whether somebody has cancelled the study of its winner."""
        return self.fresh is not None and self.fresh.state is StudyState.CANCELLED

    @property
    def studies(self) -> list[StudyRow]:
        return [study for study in (self.search, self.fresh) if study is not None]


@dataclass(frozen=True)
class ComparisonRows:
    """A comparison, its arms in the order of its spec, and all studies that it has ever had."""

    row: ComparisonRow
    arms: Sequence[ArmRows]
    studies: Sequence[StudyRow]


def rows_of(tx: Transaction, found: Sequence[ComparisonRow]) -> list[ComparisonRows]:
    """The studies of comparisons, in a few queries for all of them."""
    of_all = tx.comparisons.studies_of([row.id for row in found])
    studies = tx.studies.of_ids([one.study_id for its in of_all.values() for one in its])
    return [_rows(row, of_all[row.id], studies) for row in found]


def _rows(
    row: ComparisonRow, its: Sequence[ArmStudyRow], studies: Mapping[int, StudyRow]
) -> ComparisonRows:
    arms: dict[str, ArmRows] = {
        one.arm: ArmRows(one.arm, studies[one.study_id], one.num_seen)
        for one in its
        if one.winner is None
    }
    for one in its:
        if one.winner is not None:  # the newest comes last
            arms[one.arm] = replace(arms[one.arm], winner=one.winner, fresh=studies[one.study_id])
    return ComparisonRows(
        row, [arms[name] for name in row.spec.arms], [studies[one.study_id] for one in its]
    )


def state_of(tx: Transaction, found: ComparisonRows) -> StudyState:
    arms = [_state_of_arm(tx, found, arm) for arm in found.arms]
    return comparison_state(found.row.told_to, arms)


def summary(tx: Transaction, found: ComparisonRows) -> resources.ComparisonSummary:
    """A comparison as lists show it."""
    row, studies = found.row, found.studies
    arms = {arm.name: _state_of_arm(tx, found, arm) for arm in found.arms}
    state = comparison_state(row.told_to, arms.values())
    started = [study.started_at for study in studies if study.started_at is not None]
    finished = [study.finished_at for study in studies if study.finished_at is not None]
    return resources.ComparisonSummary(
        name=row.name,
        state=state,
        reason=_reason(tx, found, state, arms),
        spec=row.spec,
        arm_states=arms,
        device_seconds=sum(study.device_seconds for study in studies),
        owner=row.owner,
        created_at=row.created_at,
        started_at=min(started, default=None),
        finished_at=None if state in OPEN_STUDY else max(finished, default=None),
    )


def comparison(tx: Transaction, found: ComparisonRows) -> resources.Comparison:
    """A comparison with its arms, and the result where there is one."""
    told = summary(tx, found)
    winners = {
        arm.name: tx.trials.find(arm.search.id, arm.winner)
        for arm in found.arms
        if arm.winner is not None
    }
    searches = {arm.name: views.study(tx, arm.search) for arm in found.arms}
    arms = [
        resources.Arm(
            name=arm.name,
            state=told.arm_states[arm.name],
            reason=_reason_of_arm(tx, arm, told.arm_states[arm.name]),
            search=searches[arm.name],
            winner=_best(winners.get(arm.name), searches[arm.name]),
            fresh=None if arm.fresh is None else views.study(tx, arm.fresh),
        )
        for arm in found.arms
    ]
    return resources.Comparison(**dict(told), arms=tuple(arms), result=_result(tx, found, arms))


def _state_of_arm(tx: Transaction, found: ComparisonRows, arm: ArmRows) -> StudyState:
    fresh = None if arm.fresh is None else arm.fresh.state
    if arm.fresh is not None and fresh is StudyState.FAILED and any(_complete_runs(tx, arm.fresh)):
        fresh = StudyState.COMPLETED  # a run that failed fails its trial; the others tell enough
    return arm_state(found.row.told_to, arm.search.state, is_settled=arm.is_settled, fresh=fresh)


def _reason_of_arm(tx: Transaction, arm: ArmRows, state: StudyState) -> str | None:
    """Why an arm has no result, or what it waits for."""
    at = arm.search
    if arm.fresh is not None and arm.is_settled and at.state is StudyState.COMPLETED:
        at = arm.fresh
    match state:
        case StudyState.COMPLETED:
            return None
        case StudyState.FAILED:
            return at.reason or "none of its trials came to its end"
        case StudyState.CANCELLED if at is arm.fresh:
            return (
                f"{at.name} is CANCELLED, which leaves the arm out until the comparison is "
                "extended, or resumed after its end"
            )
        case StudyState.CANCELLED if at.state is StudyState.CANCELLED:
            return f"{at.name} is CANCELLED, which leaves the arm out for good"
        case StudyState.CANCELLED:
            return "the comparison was cancelled before its winner was trained again"
        case StudyState.PAUSED:
            return PAUSED
    return views.waits_for(tx, at)


def _reason(
    tx: Transaction, found: ComparisonRows, state: StudyState, arms: Mapping[str, StudyState]
) -> str | None:
    """Why a comparison has failed, or what it waits for."""
    match state:
        case StudyState.COMPLETED | StudyState.CANCELLED:
            return None
        case StudyState.PAUSED:
            return PAUSED
    reasons = {
        arm.name: _reason_of_arm(tx, arm, arms[arm.name])
        for arm in found.arms
        if state is StudyState.FAILED or arms[arm.name] in OPEN_STUDY
    }
    if state is StudyState.FAILED:
        cancelled = [reasons[name] for name, its in arms.items() if its is StudyState.CANCELLED]
        if cancelled:
            return f"{cancelled[0]}; without it nothing can be compared"
        if any(arm.fresh is not None for arm in found.arms):
            return "no winner came to its end with fresh seeds"
        shared = {arm.search.reason for arm in found.arms}
        why = shared.pop() if len(shared) == 1 else None
        return "no trial of any arm came to its end" + (f": {why}" if why else "")
    first, *_ = reasons.values()
    return first if all(reasons.values()) else None


def _best(trial: TrialRow | None, search: Study) -> BestTrial | None:
    """The winner of an arm; its search may have gone on since, and have a better one."""
    if trial is None or trial.value is None:
        return None
    if search.best is not None and search.best.number == trial.number:
        return search.best
    return BestTrial(
        number=trial.number,
        value=trial.value,
        num_seeds=search.spec.replicates,
        config=trial.config,
    )


def runs_by_seed(tx: Transaction, study: StudyRow) -> list[RunRow]:
    """Of each fresh seed one run: the newest that is complete, else the newest.

    A failed run fails its trial, and who retries that trains all its seeds again.
    """
    found: dict[int, RunRow] = {}
    trials = tx.trials.page(study.id)
    for runs in tx.runs.of_trials([trial.id for trial in trials]).values():
        for run in runs:
            before = found.get(run.replicate, run)
            if run.state is RunState.COMPLETE or before.state is not RunState.COMPLETE:
                found[run.replicate] = run
    return [found[replicate] for replicate in sorted(found)]


def _complete_runs(tx: Transaction, study: StudyRow) -> Iterator[RunRow]:
    return (run for run in runs_by_seed(tx, study) if run.state is RunState.COMPLETE)


def _result(
    tx: Transaction, found: ComparisonRows, arms: Sequence[resources.Arm]
) -> resources.ComparisonResult | None:
    """What is known of the arms whose winners have been trained again."""
    done = {arm.name: arm for arm in arms if arm.state is StudyState.COMPLETED}
    fresh = {arm.name: arm.fresh for arm in found.arms if arm.name in done and arm.fresh}
    if not fresh:
        return None
    runs = {name: list(_complete_runs(tx, study)) for name, study in fresh.items()}
    spec = found.arms[0].search.spec
    objective, test_metric, bounds = spec.objective, metric_on_test(spec), bounds_of(spec)

    def scores(metric: str) -> dict[str, list[float | None]]:
        return {
            name: scores_by_seed(
                fresh[name].spec, {run.replicate: (run.metrics or {}).get(metric) for run in its}
            )
            for name, its in runs.items()
        }

    tested, validated = scores(test_metric), scores(objective.metric)
    if found.row.spec.trains_on_validation:
        validated = {name: [] for name in validated}  # of rows that were trained on
    return resources.ComparisonResult(
        train_on=found.row.spec.train_on,
        metric=objective.metric,
        test_metric=test_metric,
        direction=objective.direction,
        arms=tuple(
            _arm_result(done[name], tested[name], validated[name], runs[name], bounds)
            for name in tested
        ),
        differences=tuple(
            resources.PairedDifference(
                arm=one.arm,
                other=one.other,
                value=one.value,
                interval=views.interval(comparing.shown(one.interval, bounds.of_differences)),
                p_value=one.p_value,
                num_pairs=one.num_pairs,
                verdict=one.verdict,
                sentence=comparing.sentence(one, test_metric, bounds),
            )
            for one in comparing.differences(tested, objective.direction)
        ),
    )


def _arm_result(
    arm: resources.Arm,
    tested: comparing.Scores,
    validated: comparing.Scores,
    runs: Sequence[RunRow],
    bounds: Bounds,
) -> resources.ArmResult:
    assert arm.winner is not None, "its winner was trained again"
    mean = comparing.mean_of(arm.name, tested)
    seen = [Measures.model_validate(run.measures) for run in runs if run.measures is not None]
    return resources.ArmResult(
        arm=arm.name,
        in_search=arm.winner.value,
        again=comparing.mean_of(arm.name, validated).value,
        mean=mean.value,
        interval=views.interval(comparing.shown(mean.interval, bounds)),
        scores=tuple(tested),
        measures=measures.means(seen),
        weight_histogram=measures.pooled(seen),
    )
