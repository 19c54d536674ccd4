"""More trials for a study that exists: a larger budget or space, or its failures once more.

Neither opens a trial that has ended: a failure is tried again as a trial with a number of its own.
So what samplers saw of the history stays as it was, and so does what readers of Optuna's tables,
who never look at a finished trial again, have seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline.search.objective import MAX_SECONDS, MAX_TRIALS
from ridgeline.search.samplers.base import Suggestion
from ridgeline.search.space import Space
from ridgeline.search.spec import InvalidSpec, StudySpec, parse_spec
from ridgeline.search.widening import shrinkings
from ridgeline.service import studies, views
from ridgeline.service.errors import Conflict, InvalidInput
from ridgeline.service.ledger import Ledger, num_planned
from ridgeline.service.lifecycle import OPEN_STUDY, StudyState
from ridgeline.service.resources import ExtendRequest, ExtendStudyRequest, RetryRequest, Study
from ridgeline.service.store.rows import PastSpace, StudyRow
from ridgeline.service.store.session import Transaction

MAX_PAST_SPACES = 50
"""How often a space may grow: all that a study has had are read with it."""


def extend_alone(
    tx: Transaction, name: str, request: ExtendStudyRequest, *, max_open: int
) -> Study:
    """The same for a study that no comparison compares with others.

    Raises:
        Conflict: it is a part of one, whose arms all have the same budget.
        NotFound, InvalidInput, LimitExceeded: as of `extend`.
    """
    way_on = ", whose arms have the same budget; extend that as a whole"
    if request.space is not None:
        way_on = ", whose arms are compared as they were asked for; post another comparison"
    studies.check_stands_alone(tx, studies.find(tx, name), way_on)
    return extend(tx, name, request, space=request.space, max_open=max_open)


def extend(
    tx: Transaction,
    name: str,
    request: ExtendRequest,
    *,
    space: Mapping[str, Mapping[str, Any]] | None = None,
    max_open: int,
    way_on: str = "clone the study",
) -> Study:
    """Add to a study's budget; one that has ended is queued again, one that stops goes on.

    Args:
        space: parameters whose ranges or lists of values grow, of each the fields that change.
        way_on: by which a person gets what no larger budget of this study can give.

    Raises:
        NotFound: there is no study of that name.
        Conflict: the study was cancelled; or its space is to grow while it is reproducible and has
            not ended.
        InvalidInput: the budget or the space cannot grow so, or the study would have nothing to do.
        LimitExceeded: the study has ended, and its owner has `max_open` unfinished ones.
    """
    check_asks_for_more(request)
    ledger = _ledger(tx, name)
    study, spec = ledger.study, ledger.spec
    grown = _grown(study, space or {})
    budget: dict[str, Any] = {}
    if request.trials is not None:
        budget["trials"] = _num_kept(study) + request.trials
    if request.seconds is not None:
        if spec.budget.seconds is None:
            raise InvalidInput([("seconds", "the study has no budget of time that could grow")])
        budget["seconds"] = spec.budget.seconds + request.seconds
    _check_sums(study, budget, way_on)
    seconds_left = _seconds_left(tx, study) + (request.seconds or 0.0)
    study.spec = _changed(spec, budget=budget, space=grown)
    _check_grown(spec.space, study.spec.space)
    grows = study.spec.space != spec.space
    if grows and len(study.past_spaces) >= MAX_PAST_SPACES:
        raise Conflict(f"{name} has grown {MAX_PAST_SPACES} times; clone it to go on")
    if not budget and not grows:
        raise InvalidInput([("space", "is what is searched already; give what is to grow")])
    if study.next_number >= num_planned(study, study.spec):
        raise InvalidInput([("trials", "is missing: every trial of the budget has been created")])
    if spec.budget.seconds is not None and seconds_left <= 0:
        raise InvalidInput([("seconds", "is missing: the study's time is up")])
    if spec.budget.seconds is not None and study.started_at is not None:
        if study.state not in OPEN_STUDY:
            ledger.set_deadline(seconds_left)
        elif request.seconds is not None:
            ledger.extend_deadline(request.seconds)
    _go_on(tx, ledger, max_open=max_open)
    if grows:
        past = PastSpace(study.state_revision, spec.space)
        study.past_spaces = (*study.past_spaces, past)
    return views.study(tx, study)


def check_asks_for_more(request: ExtendRequest) -> None:
    """Raises InvalidInput where a request asks for nothing."""
    if not request.model_dump(exclude_none=True):
        *others, last = type(request).model_fields
        raise InvalidInput([("trials", f"is missing; give {', '.join(others)} or {last}")])


def retry(tx: Transaction, name: str, request: RetryRequest, *, max_open: int) -> Study:
    """Try the failures of a study once more, each as a new trial that its budget grows by.

    Those that are tried again already are left alone, so that repeating it changes nothing.

    Raises:
        NotFound: there is no study of that name.
        Conflict: the study was cancelled, is stopping, or is reproducible and has not ended.
        LimitExceeded: the study has ended, and its owner has `max_open` unfinished ones.
    """
    ledger = _ledger(tx, name)
    study, spec = ledger.study, ledger.spec
    failures = tx.trials.failures(study.id, request.reasons)
    if not failures:
        return views.study(tx, study)
    if study.state in OPEN_STUDY and (study.stopping or spec.reproducible):
        why = "is stopping" if study.stopping else "is reproducible"
        raise Conflict(f"{name} {why}: its failures can be tried again once it has ended")
    if study.next_number + len(failures) > MAX_TRIALS:
        raise Conflict(f"{name} would have more than {MAX_TRIALS} trials; clone it")
    is_grid = spec.sampler.name == "grid"  # what a person enqueues comes on top of its cells
    kept = _num_kept(study)
    study.spec = _changed(spec, budget={"trials": kept if is_grid else kept + len(failures)})
    if study.state not in OPEN_STUDY:
        # All its trials are there, and they need not hurry.
        study.deadline_at = study.ungranted_seconds = None
    _go_on(tx, ledger, max_open=max_open)
    first = study.next_number
    suggestions = [
        Suggestion(number=number, config=trial.config, seed=0, grid_cell=None)
        for number, trial in enumerate(failures, start=first)
    ]
    retried = [trial.number for trial in failures]
    ledger.create_trials(suggestions, sampler=None, seen_revision=None, retried=retried)
    return views.study(tx, study)


def _ledger(tx: Transaction, name: str) -> Ledger:
    ledger = Ledger(tx, studies.find(tx, name).id)
    if ledger.study.state is StudyState.CANCELLED:
        raise Conflict(f"{name} was cancelled for good; clone it to search again")
    return ledger


def _num_kept(study: StudyRow) -> int:
    """The budget of trials without those that an end or a stop has kept from being created."""
    if study.state in OPEN_STUDY and not study.stopping:
        return study.spec.num_trials
    extra = num_planned(study, study.spec) - study.spec.num_trials
    return max(1, study.next_number - extra)


def _check_sums(study: StudyRow, budget: dict[str, Any], way_on: str) -> None:
    """Raises InvalidInput where what is asked for and what is there come to too much."""
    num_cells = study.spec.space.num_cells if study.spec.sampler.name == "grid" else None
    problems = []
    if (trials := budget.get("trials", 0)) > MAX_TRIALS:
        reason = f"the budget would come to {trials} trials, and may have {MAX_TRIALS} at most"
        problems.append(("trials", f"{reason}; {way_on} for more"))
    elif num_cells is not None and trials > num_cells:
        reason = f"the grid has only {num_cells} cells; {way_on} with more points or values"
        problems.append(("trials", f"{reason} to try more"))
    if (seconds := budget.get("seconds", 0.0)) > MAX_SECONDS:
        reason = f"the budget would come to {seconds:.15g} seconds"
        problems.append(("seconds", f"{reason}, and may have {MAX_SECONDS} at most"))
    if problems:
        raise InvalidInput(problems)


def _seconds_left(tx: Transaction, study: StudyRow) -> float:
    """Of the budget of time; the time since the study has ended does not count."""
    if study.started_at is None:
        return study.spec.budget.seconds or 0.0
    if study.deadline_at is None:
        return 0.0
    return max(0.0, study.deadline_at - (study.finished_at or tx.now))


def _grown(study: StudyRow, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Definitions of the parameters that change, as a spec has them."""
    if changes and study.spec.sampler.name == "grid":
        reason = "cannot grow: it would number the cells of the grid anew; clone the study"
        raise InvalidInput([("space", reason)])
    if changes and study.spec.reproducible and study.state in OPEN_STUDY:
        raise Conflict(f"{study.name} is reproducible: its space can grow once it has ended")
    unknown = [name for name in changes if name not in study.spec.space]
    if unknown:
        reason = "is not a parameter of this study's space; clone the study to search it too"
        raise InvalidInput([(f"space.{name}", reason) for name in unknown])
    old = study.spec.space.model_dump(mode="json")
    return {name: {**old[name], **fields} for name, fields in changes.items()}


def _check_grown(old: Space, new: Space) -> None:
    """Raises InvalidInput where a space is not another one that has grown."""
    studies.check_num_listed(new)
    problems = list(shrinkings(old, new))
    if problems:
        raise InvalidInput([(f"space.{path}", reason) for path, reason in problems])


def _changed(
    spec: StudySpec, *, budget: Mapping[str, Any], space: Mapping[str, Any] | None = None
) -> StudySpec:
    """The spec with another budget and space, of which the request's fields have the names."""
    if spec.reproducible:
        # It decides what each trial has seen, and would follow from the number of trials.
        budget = {"max_parallel": spec.max_parallel, **budget}
    data = spec.model_dump(mode="json")
    data["budget"] |= budget
    data["space"] |= space or {}
    try:
        return parse_spec(data)
    except InvalidSpec as exc:
        raise InvalidInput(
            [(field.removeprefix("budget."), reason) for field, reason in exc.problems]
        ) from exc


def _go_on(tx: Transaction, ledger: Ledger, *, max_open: int) -> None:
    """Take up again what has ended or was to stop, and note the change of what is open."""
    study = ledger.study
    if study.state in OPEN_STUDY:
        ledger.set_study_state(study.state)
    else:
        studies.check_limit(tx, study.owner, max_open)
        study.virtual_seconds = max(study.virtual_seconds, studies.virtual_start(tx))
        study.finished_at = None
        study.archived = False  # nobody is to overlook what takes up devices
        ledger.set_study_state(StudyState.QUEUED)
    study.stopping = False
