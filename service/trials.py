"""What can be done with trials, and how programs that train by themselves get them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ridgeline.search.objective import MAX_TRIALS
from ridgeline.search.samplers import feasible
from ridgeline.search.samplers.base import Suggestion
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.service import dispatch, paging, sampling, studies, views
from ridgeline.service.errors import Conflict, InvalidInput, NotFound
from ridgeline.service.external_protocol import (
    SuggestedTrial,
    SuggestRequest,
    SuggestResponse,
)
from ridgeline.service.ledger import Ledger, num_planned
from ridgeline.service.lifecycle import OPEN_STUDY, SERVABLE_STUDY, StudyState, TrialState
from ridgeline.service.resources import EpochMetrics, Trial, TrialWithHistory
from ridgeline.service.sampling import Proposal
from ridgeline.service.store.rows import RunOfTrial, StudyRow, TrialRow
from ridgeline.service.store.session import Store, Transaction

_RUNS_AT_ONCE = 1_000
"""How many runs are read at a time, of which a page may hold fewer."""

Remember = Callable[[Transaction, SuggestResponse], None]
"""Stores an answer in the transaction that makes it true."""


def list_page(
    tx: Transaction, study: str, *, page_size: int, cursor: int | None, state: TrialState | None
) -> tuple[list[Trial], int | None]:
    """Trials in the order of their numbers, and the cursor of the next page.

    A page is shorter where its trials are large.
    """
    row = studies.find(tx, study)
    above = -1 if cursor is None else cursor
    at_once = max(1, _RUNS_AT_ONCE // row.spec.num_runs)
    page: list[Trial] = []
    room = paging.MAX_PAGE_BYTES
    while True:
        limit = min(page_size - len(page), at_once)
        rows = tx.trials.page(row.id, limit=limit + 1, above_number=above, state=state)
        found = views.trials(tx, study, rows[:limit])
        sizes = [len(trial.model_dump_json()) for trial in found]
        num = max(paging.num_fitting(sizes, room), 0 if page else 1)
        page += found[:num]
        if num < len(found):
            return page, page[-1].number
        if len(rows) <= limit:
            return page, None
        above = page[-1].number
        if len(page) == page_size:
            return page, above
        room -= sum(sizes)


def get(tx: Transaction, study: str, number: int) -> TrialWithHistory:
    """A trial with the metrics of all its epochs.

    Raises:
        NotFound: there is no such study or trial.
    """
    row, trial = find(tx, study, number)
    reports = tx.runs.reports_of(row.id, trial_id=trial.id)
    epochs = sorted(
        (
            EpochMetrics(replicate=r.replicate, epoch=r.epoch, metrics=dict(r.metrics))
            for r in reports
        ),
        key=lambda report: (report.replicate, report.epoch),
    )
    base = views.trials(tx, study, [trial])[0]
    return TrialWithHistory(**dict(base), epochs=tuple(epochs))


def enqueue(
    tx: Transaction, study: str, configs: Sequence[Config], *, completed: Proposal | None = None
) -> list[Trial]:
    """Trials to try next, before the sampler is asked.

    They count towards the budget; those of a grid come on top of its cells.

    Args:
        completed: where a configuration leaves something out, all of them without gaps.

    Raises:
        NotFound: there is no study of that name.
        InvalidInput: a configuration is not of the study's space.
        Conflict: the study has ended, is stopping, or its budget has no room for them.
    """
    ledger = Ledger(tx, studies.find(tx, study).id)
    row, space = ledger.study, ledger.spec.space
    refuse_unfit(row, configs)
    if completed is None:
        suggestions = [
            Suggestion(number, space.ordered(config), seed=0, given=tuple(config))
            for number, config in enumerate(configs, start=row.next_number)
        ]
        trial_ids = ledger.create_trials(suggestions, sampler=None, seen_revision=None)
    else:
        trial_ids = ledger.create_trials(
            completed.suggestions, sampler=completed.sampler, seen_revision=completed.seen_revision
        )
    rows = tx.trials.of_ids(trial_ids)
    return views.trials(tx, study, [rows[trial_id] for trial_id in trial_ids])


def refuse_unfit(row: StudyRow, configs: Sequence[Config]) -> None:
    """Raises where configurations cannot be enqueued; see `enqueue`."""
    study, spec = row.name, row.spec
    grid = spec.sampler.name == "grid"
    missing = "is missing: a grid chooses no values, so give every parameter" if grid else None
    problems = [
        (f"configs.{index}.{name}", reason)
        for index, config in enumerate(configs)
        for name, reason in spec.space.problems(config, missing=missing)
    ]
    problems = problems or [
        (f"configs.{index}.{next(iter(config))}", f"no trial with it keeps {_told(spec)}")
        for index, config in enumerate(configs)
        if config and spec.space.lacks(config) and _leaves_nothing(spec, config)
    ]
    if problems:
        raise InvalidInput(problems)
    if row.state not in OPEN_STUDY or row.stopping:
        # The budget of a whole grid cannot grow.
        is_whole = (
            grid
            and spec.num_trials == spec.space.num_cells
            and row.next_number >= num_planned(row, spec)
        )
        can_go_on = row.state is not StudyState.CANCELLED and not is_whole
        way_on = "extend it first" if can_go_on else "clone it, and enqueue there"
        raise Conflict(f"{study} takes no more trials: it is {_condition(row)}; {way_on}")
    room = (MAX_TRIALS if grid else spec.num_trials) - row.next_number
    if len(configs) > room:
        raise Conflict(f"the budget of {study} has room for {max(room, 0)} more trials; extend it")
    if spec.reproducible and row.next_number > row.num_enqueued:
        raise Conflict(
            f"{study} is reproducible and has begun: trials enqueued now would take numbers that "
            "depend on timing; enqueue them before its first suggestion, or clone the study"
        )


def _leaves_nothing(spec: StudySpec, config: Config) -> bool:
    """Whether no trial of some values keeps the constraints."""
    space = spec.space
    return bool(space.constraints) and not feasible.has_any(space.narrowed(space.ordered(config)))


def _told(spec: StudySpec) -> str:
    many = len(spec.constraints) > 1
    return f"the constraint{'s' if many else ''} {', '.join(spec.constraints)}"


def suggest(
    store: Store, study: str, request: SuggestRequest, *, remember: Remember | None = None
) -> SuggestResponse:
    """Hand trials of an external study to a program that trains by itself.

    Those that the client has open come first, then those that wait: enqueued, or given up by a
    program that fell silent.  An answer without trials has changed nothing and is not remembered.

    Raises:
        NotFound: there is no study of that name.
        Conflict: the study is trained by workers.
    """
    with store.turn(study):
        return _suggest(store, study, request, remember)


def _suggest(
    store: Store, study: str, request: SuggestRequest, remember: Remember | None
) -> SuggestResponse:
    while True:
        with store.reading() as tx:
            row = studies.find(tx, study)
            if not row.spec.external:
                raise Conflict(f"{study} is trained by workers; its task is not external")
            held = _held(tx, row, request)
            missing = request.count - len(held)
            any_wait, outlook = False, None
            if missing > 0 and row.state in SERVABLE_STUDY:
                any_wait = bool(dispatch.startable(tx, row, limit=1, reserve=0))
                outlook = sampling.look(store, tx, row, missing)
            if not held and not any_wait and outlook is None:
                return _answer(row, request, ())
        proposal = None if outlook is None else outlook.propose()
        with store.transaction() as tx:
            ledger = Ledger(tx, row.id)
            handed = _held(tx, ledger.study, request)
            tx.runs.renew_leases(
                [one.run.id for one in handed], tx.now, lease_seconds=request.lease_seconds
            )
            handed += _hand_out_waiting(tx, ledger, request, limit=request.count - len(handed))
            missing = request.count - len(handed)
            if missing > 0 and proposal is not None:
                if not sampling.accept(ledger, proposal.first(missing)) and not handed:
                    continue  # a person has enqueued trials or stopped the study: look again
                handed += _hand_out_waiting(tx, ledger, request, limit=missing)
            is_cut = proposal is not None and not proposal.is_whole
            response = _answer(ledger.study, request, handed, is_cut=is_cut)
            if remember is not None and handed:
                remember(tx, response)
            return response


def find(tx: Transaction, study: str, number: int) -> tuple[StudyRow, TrialRow]:
    """A trial and its study.

    Raises:
        NotFound: there is no such study or trial.
    """
    row = studies.find(tx, study)
    trial = tx.trials.find(row.id, number)
    if trial is None:
        raise NotFound(f"{study} has no trial {number}")
    return row, trial


def _held(tx: Transaction, study: StudyRow, request: SuggestRequest) -> list[RunOfTrial]:
    """What the client has open already, paused study or not."""
    if request.client_id is None or study.state not in OPEN_STUDY:
        return []
    return tx.runs.held_by_client(study.id, request.client_id, limit=request.count)


def _hand_out_waiting(
    tx: Transaction, ledger: Ledger, request: SuggestRequest, *, limit: int
) -> list[RunOfTrial]:
    if ledger.study.state not in SERVABLE_STUDY:
        return []
    return dispatch.start(
        tx,
        ledger,
        None,
        [None] * limit,
        client_id=request.client_id,
        lease_seconds=request.lease_seconds,
    )


def _answer(
    study: StudyRow,
    request: SuggestRequest,
    handed: Sequence[RunOfTrial],
    *,
    is_cut: bool = False,
) -> SuggestResponse:
    if len(handed) == request.count:
        reason = None
    elif is_cut and study.state in SERVABLE_STUDY and not study.stopping:
        reason = "the sampler takes long; ask again for the others"
    else:
        reason = _why_fewer(study)
    return SuggestResponse(
        trials=tuple(
            SuggestedTrial(
                number=number,
                attempt=run.attempt,
                config=config,
                seed=run.seed,
                lease_seconds=request.lease_seconds,
            )
            for run, number, config, _ in handed
        ),
        state=study.state,
        reason=reason,
    )


def _why_fewer(row: StudyRow) -> str:
    spec = row.spec
    if row.state not in SERVABLE_STUDY or row.stopping:
        return f"the study is {_condition(row)}"
    if row.next_number >= num_planned(row, spec):
        return "every trial of the budget has been handed out"
    if row.num_open >= spec.max_parallel:
        return f"{row.num_open} trials are in flight; max_parallel is {spec.max_parallel}"
    return "waits for earlier trials to end (reproducible), or for the clock"


def _condition(row: StudyRow) -> str:
    return "stopping" if row.stopping and row.state in OPEN_STUDY else str(row.state)
