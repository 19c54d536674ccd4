"""What can be done with comparisons, and what they do by themselves.

A transaction that changes one locks its row first, and then studies in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

from ridgeline.search.comparison import (
    ComparisonSpec,
    Partial,
    blamed,
    fresh_study,
    parse_comparison,
    studies_of,
)
from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.data_root import Folders
from ridgeline.service import comparison_views, extending, paging, studies
from ridgeline.service.comparison_resources import Comparison, ComparisonSummary
from ridgeline.service.comparison_views import ComparisonRows
from ridgeline.service.errors import Conflict, InvalidInput, NotFound
from ridgeline.service.lifecycle import (
    OPEN_STUDY,
    STUDY_VERBS,
    StudyState,
    ToldTo,
    verb_is_done,
)
from ridgeline.service.resources import ExtendRequest
from ridgeline.service.store.rows import ArmStudyRow, ComparisonRow, StudyRow
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.winners import winner_of

Verb = Literal["pause", "resume", "cancel"]

_TOLD_TO: Mapping[Verb, ToldTo] = {"pause": "pause", "resume": "run", "cancel": "cancel"}


@dataclass(frozen=True)
class Terms:
    """On what terms studies can be added: the data sets known here, and how many may be open."""

    local: Folders
    max_open: int


def create(tx: Transaction, spec: ComparisonSpec, *, owner: str | None, terms: Terms) -> Comparison:
    """Queue a comparison, with the study that tunes each arm; studies that are there are taken in.

    Raises:
        Conflict: the name is taken, or that of one of its studies by another one.
        InvalidInput: an arm cannot be trained; the fields are those of the comparison's spec.
        LimitExceeded: the owner would have too many unfinished studies.
    """
    if tx.comparisons.find(spec.name) is not None:
        raise Conflict(
            f"there is a comparison named {spec.name} already; choose another name, or delete "
            "that one"
        )
    row = tx.comparisons.insert(
        name=spec.name,
        owner=owner,
        spec=spec.model_dump(mode="json"),
        told_to="run",
        created_at=tx.now,
    )
    _add_searches(tx, row, spec.arms, terms)
    return _view(tx, spec.name)


def add_arms(
    tx: Transaction, name: str, arms: Mapping[str, Partial], *, terms: Terms
) -> Comparison:
    """Add arms, with the budget and the data that the others have by now.

    A comparison that has ended goes on with them.

    Raises:
        NotFound: there is no comparison of that name.
        Conflict: it was cancelled, or has an arm of that name.
        InvalidSpec, InvalidInput, LimitExceeded: as of `create`.
    """
    found = _to_go_on(tx, name)
    row = found.row
    if taken := [arm for arm in arms if arm in row.spec.arms]:
        raise Conflict(f"{name} has an arm named {taken[0]} already")
    base = {field: value for field, value in row.spec.base.items() if field != "name"}
    # Earlier versions took a name of the base, and did not read it.
    spec = parse_comparison(
        {**row.spec.model_dump(), "base": base, "arms": {**row.spec.arms, **arms}}
    )
    tx.comparisons.update(row.id, spec=spec.model_dump(mode="json"))
    added = _add_searches(tx, _find(tx, name), arms, terms)
    fingerprint = found.arms[0].search.data_fingerprint
    for study in added:
        # All arms train on the same rows, also where the data set of that name has others by now.
        study.data_fingerprint = fingerprint or study.data_fingerprint
    _begin(tx, found, added)
    return _view(tx, name)


def extend(tx: Transaction, name: str, request: ExtendRequest, *, max_open: int) -> Comparison:
    """Add to the budget of every arm; those that have ended search on.

    Raises:
        NotFound: there is no comparison of that name.
        Conflict: it was cancelled, or the searches of all its arms were.
        InvalidInput: the budget of an arm, which the reason names, cannot grow so.
        LimitExceeded: the owner would have too many unfinished studies.
    """
    found = _to_go_on(tx, name)
    extending.check_asks_for_more(request)
    searches = [arm.search for arm in found.arms if arm.search.state is not StudyState.CANCELLED]
    if not searches:
        raise Conflict(f"every arm of {name} was cancelled for good; add other arms")
    _extend_all(tx, found, request, max_open)
    budget = _budget_without_retries(tx, searches[0])
    spec = found.row.spec.model_dump(mode="json")
    tx.comparisons.update(found.row.id, spec={**spec, "base": {**spec["base"], "budget": budget}})
    _begin(tx, found, searches)
    return _view(tx, name)


def apply_verb(tx: Transaction, name: str, verb: Verb) -> Comparison:
    """Pause, resume or cancel a comparison and its studies; what is done already stays.

    Resuming one that has ended trains the winners again whose studies of fresh seeds were
    cancelled.  What large studies still have open then, maintenance cancels.

    Raises:
        NotFound: there is no comparison of that name.
        Conflict: its state does not allow it.
    """
    found = _locked(tx, name)
    state = comparison_views.state_of(tx, found)
    is_done = verb_is_done(verb, state, stopping=False, archived=False)
    if not is_done and state not in STUDY_VERBS[verb]:
        way_on = "was cancelled for good" if state is StudyState.CANCELLED else "has ended"
        raise Conflict(f"a comparison that is {state} cannot be told to {verb}: it {way_on}")
    if state in OPEN_STUDY:  # also where its studies were told to, one by one, all or some
        tx.comparisons.update(found.row.id, told_to=_TOLD_TO[verb])
        _tell(tx, found.studies, verb)
    elif verb == "resume":
        _take_up(tx, found)
    return _view(tx, name)


def delete(tx: Transaction, name: str) -> Comparison:
    """Delete a comparison that has ended, with all its studies; returns it as it was.

    Raises:
        NotFound: there is no comparison of that name.
        Conflict: it has not ended.
    """
    found = _locked(tx, name)
    state = comparison_views.state_of(tx, found)
    if state in OPEN_STUDY:
        raise Conflict(f"{name} is {state}; cancel it before deleting it")
    was = comparison_views.comparison(tx, found)
    tx.comparisons.delete(found.row.id)
    for study in found.studies:
        studies.delete(tx, study.name)
    return was


def get(tx: Transaction, name: str) -> Comparison:
    """A comparison.

    Raises:
        NotFound: there is no comparison of that name.
    """
    return _view(tx, name)


def list_page(
    tx: Transaction, *, page_size: int, cursor: int | None
) -> tuple[list[ComparisonSummary], int | None]:
    """Comparisons, newest first, and the cursor of the next page; shorter where specs are long."""
    sizes = tx.comparisons.spec_sizes(limit=page_size + 1, below_id=cursor)
    limit = max(1, paging.num_fitting(sizes[:page_size], paging.MAX_PAGE_BYTES))
    rows = tx.comparisons.page(limit=limit, below_id=cursor)
    more = rows[-1].id if len(sizes) > limit else None
    found = comparison_views.rows_of(tx, rows)
    return [comparison_views.summary(tx, one) for one in found], more


# ---- what comparisons do by themselves


def advance_all(store: Store) -> None:
    """Train the winners of searches that have ended again, with fresh seeds.

    Each arm has a transaction of its own, and what is to be done follows from the tables.  So any
    number of api processes may call it at once, and be killed anywhere.
    """
    with store.reading() as tx:
        arms = tx.comparisons.to_advance()
    failure: Exception | None = None
    for name, arm in arms:
        try:
            with store.transaction() as tx:
                _advance(tx, name, arm)
        except Exception as exc:  # the others need not wait for it
            failure = failure or exc
    if failure is not None:
        raise failure


def _advance(tx: Transaction, name: str, arm_name: str) -> None:
    row = tx.comparisons.lock(name)
    if row is None or row.told_to != "run":
        return
    (found,) = comparison_views.rows_of(tx, [row])
    arm = next(one for one in found.arms if one.name == arm_name)
    for study_id in sorted(study.id for study in arm.studies):
        tx.studies.lock(study_id)
    search = tx.studies.lock(arm.search.id)
    if search.state in OPEN_STUDY or arm.num_seen == search.next_number:
        return  # somebody has extended it, or was faster
    tx.comparisons.note_seen(search.id, search.next_number)
    if search.state is not StudyState.COMPLETED:
        return
    winner = winner_of(tx.trials, search.id, search.spec)
    if winner is None or (winner.trial.number == arm.winner and not arm.is_left_out):
        return
    best = winner.trial
    if arm.fresh is not None:
        _tell(tx, [tx.studies.lock(arm.fresh.id)], "cancel")
        if best.number == arm.winner:  # the arm has one study for a winner
            tx.comparisons.release(arm.fresh.id)
    runs = tx.runs.of_trials([best.id])[best.id]
    kept_epochs = [run.kept_epoch for run in runs if run.kept_epoch is not None]
    spec = fresh_study(row.spec, arm_name, search.spec, best.config, kept_epochs)
    fresh = _fresh(tx, spec, owner=row.owner, data_fingerprint=search.data_fingerprint)
    tx.comparisons.add_study(ArmStudyRow(fresh.id, row.id, arm_name, best.number, None))


def _fresh(
    tx: Transaction, spec: StudySpec, *, owner: str | None, data_fingerprint: str | None
) -> StudyRow:
    """A study of fresh seeds, under the first name that is free; one that is there is taken in.

    It takes the place of a search that has ended, so it is added whatever else its owner has open.
    """
    for number in count(1):
        name = spec.name if number == 1 else f"{spec.name}.{number}"
        named = spec.model_copy(update={"name": name})
        there = tx.studies.find(name)
        if there is None:
            return studies.queue(tx, named, owner=owner, data_fingerprint=data_fingerprint)
        is_free = tx.comparisons.owner_of(there.id) is None
        if is_free and there.spec == named and there.state is not StudyState.CANCELLED:
            return there
    raise AssertionError("there is no last number")


# ---- parts of the above


def _take_up(tx: Transaction, found: ComparisonRows) -> None:
    """Have winners looked for again whose studies of fresh seeds were cancelled."""
    for arm in found.arms:
        if arm.is_left_out and arm.is_settled:
            tx.comparisons.note_seen(arm.search.id, None)
            tx.comparisons.update(found.row.id, told_to="run")


def _add_searches(
    tx: Transaction, row: ComparisonRow, arms: Collection[str], terms: Terms
) -> list[StudyRow]:
    """The studies that tune these arms, locked."""
    specs = studies_of(row.spec)
    there = [tx.studies.find(specs[arm].name) for arm in arms]
    for study_id in sorted(study.id for study in there if study is not None):
        tx.studies.lock(study_id)
    problems: dict[tuple[str, str], None] = {}  # in order; many arms may have the same one
    added = []
    for arm in arms:
        try:
            study = _search(tx, specs[arm], row.owner, terms)
        except InvalidInput as exc:
            problems |= {(blamed(row.spec, arm, at), why): None for at, why in exc.problems}
            continue
        tx.comparisons.add_study(ArmStudyRow(study.id, row.id, arm, None, None))
        added.append(study)
    if problems:
        raise InvalidInput(list(problems))
    return added


def _search(tx: Transaction, spec: StudySpec, owner: str | None, terms: Terms) -> StudyRow:
    there = tx.studies.find(spec.name)
    if there is None:
        studies.create(
            tx,
            spec,
            owner=owner,
            local_datasets=terms.local.cards,
            left_out=terms.local.left_out,
            max_open=terms.max_open,
        )
    elif (
        (is_cut_short := _is_cut_short(there))
        or there.spec != spec
        or tx.comparisons.owner_of(there.id) is not None
    ):
        which = "a study that was cancelled or stopped" if is_cut_short else "another study"
        raise Conflict(
            f"there is {which} named {spec.name} already: give the comparison another name, or "
            f"delete that study with `ridgeline delete {spec.name}`"
        )
    return tx.studies.lock(studies.find(tx, spec.name).id)


def _budget_without_retries(tx: Transaction, search: StudyRow) -> dict[str, Any]:
    """What arms share: a retried failure adds to the budget of its own arm alone."""
    budget = search.spec.budget.model_dump(mode="json", exclude_defaults=True)
    if search.spec.sampler.name != "grid":  # whose budget is of cells, with retries beside it
        budget["trials"] = search.spec.num_trials - tx.trials.num_retries(search.id)
    return budget


def _extend_all(
    tx: Transaction, found: ComparisonRows, request: ExtendRequest, max_open: int
) -> None:
    """Add to the budgets of all searches that were not cancelled."""
    refused: dict[tuple[str, str], list[str]] = {}  # the arms, by what is wrong with their budget
    for arm in found.arms:
        if arm.search.state is StudyState.CANCELLED:
            continue
        try:
            extending.extend(
                tx, arm.search.name, request, max_open=max_open, way_on="post another comparison"
            )
        except InvalidInput as exc:
            for problem in exc.problems:
                refused.setdefault(problem, []).append(arm.name)
    if refused:
        raise InvalidInput(
            [
                (field, f"{reason} ({'arm' if len(arms) == 1 else 'arms'} {', '.join(arms)})")
                for (field, reason), arms in refused.items()
            ]
        )


def _is_cut_short(study: StudyRow) -> bool:
    """Whether somebody has ended it before its budget was spent."""
    if study.stopping or study.state is StudyState.CANCELLED:
        return True
    has_ended, is_timed = study.state not in OPEN_STUDY, study.spec.budget.seconds is not None
    return has_ended and not is_timed and study.next_number < study.spec.num_trials


def _missing(tx: Transaction, name: str) -> NotFound:
    hint = "; a study has that name" if tx.studies.find(name) else ""
    return NotFound(f"there is no comparison named {name}{hint}")


def _find(tx: Transaction, name: str) -> ComparisonRow:
    row = tx.comparisons.find(name)
    if row is None:
        raise _missing(tx, name)
    return row


def _view(tx: Transaction, name: str) -> Comparison:
    (found,) = comparison_views.rows_of(tx, [_find(tx, name)])
    return comparison_views.comparison(tx, found)


def _locked(tx: Transaction, name: str) -> ComparisonRows:
    """A comparison and all its studies, locked until the transaction ends."""
    row = tx.comparisons.lock(name)
    if row is None:
        raise _missing(tx, name)
    of_it = tx.comparisons.studies_of([row.id])[row.id]
    for study_id in sorted(one.study_id for one in of_it):
        tx.studies.lock(study_id)
    (found,) = comparison_views.rows_of(tx, [row])
    return found


def _to_go_on(tx: Transaction, name: str) -> ComparisonRows:
    """The same of one that is given more to do; one that has ended goes on, paused or not."""
    found = _locked(tx, name)
    if found.row.told_to == "cancel":
        raise Conflict(f"{name} was cancelled for good; post another comparison")
    if comparison_views.state_of(tx, found) not in OPEN_STUDY:
        tx.comparisons.update(found.row.id, told_to="run")
        found = replace(found, row=replace(found.row, told_to="run"))
    return found


def _begin(tx: Transaction, found: ComparisonRows, given: Sequence[StudyRow]) -> None:
    """Have studies wait that were given something to do in a comparison that is paused."""
    if found.row.told_to == "pause":
        _tell(tx, given, "pause")


def _tell(tx: Transaction, its: Sequence[StudyRow], verb: Verb) -> None:
    """Tell studies that are locked, those that are in a state to be told."""
    for study in its:
        if study.state in STUDY_VERBS[verb]:
            studies.apply_verb(tx, study.name, verb)
