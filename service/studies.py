"""What can be done with studies."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from ridgeline.search.measures import Measures, flat
from ridgeline.search.space import MAX_VALUES_OF_ALL, Space
from ridgeline.search.spec import InvalidSpec, StudySpec, parse_spec
from ridgeline.search.tasks.built_in import BUILT_IN
from ridgeline.search.tasks.data import DatasetCard
from ridgeline.service import catalog, fitting, paging, views, warm_start
from ridgeline.service.downloads import SOURCES
from ridgeline.service.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from ridgeline.service.ledger import Ledger
from ridgeline.service.lifecycle import OPEN_STUDY, STUDY_VERBS, StudyState, verb_is_done
from ridgeline.service.resources import Event, Study, Winner
from ridgeline.service.store.rows import StudyRow, TrialRow
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.winners import winner_of

_OF_A_KIND = {("task",), ("pruner",)}
"""Parts of a spec whose fields follow from their name."""

Verb = Literal["pause", "resume", "stop", "cancel", "archive", "unarchive"]


def create(
    tx: Transaction,
    spec: StudySpec,
    *,
    owner: str | None,
    local_datasets: Sequence[DatasetCard],
    left_out: Mapping[str, str] = MappingProxyType({}),
    max_open: int,
    like: str | None = None,
) -> Study:
    """Queue a study; `left_out` says, by name, why a folder here is none of `local_datasets`.

    Args:
        like: the name of the study that it is a clone of.

    Raises:
        Conflict: the name is taken.
        InvalidInput: nobody has the data set, or it cannot be split or trained on as the spec
            says; a study of `warm_start` tells nothing about this one; or the space lists too many
            values, which earlier versions took.
        LimitExceeded: the owner has `max_open` unfinished studies.
    """
    if tx.studies.find(spec.name) is not None:
        raise Conflict(
            f"there is a study named {spec.name} already; choose another name, or delete that one"
        )
    check_num_listed(spec.space)
    check_limit(tx, owner, max_open)
    _refuse_unfit(tx, spec, local_datasets)
    fingerprint = _fingerprint(tx, spec, local_datasets, left_out)
    taken = warm_start.take(tx, spec, None if like is None else find(tx, like))
    row = queue(tx, spec, owner=owner, data_fingerprint=fingerprint)
    tx.sources.insert(row.id, taken)
    return views.study(tx, row)


def queue(
    tx: Transaction, spec: StudySpec, *, owner: str | None, data_fingerprint: str | None
) -> StudyRow:
    """Queue a study that can be trained, under a name that is free.

    Raises:
        Conflict: somebody else has just taken the name; the transaction must end.
    """
    row = tx.studies.insert(
        name=spec.name,
        owner=owner,
        spec=spec.model_dump(mode="json"),
        state=StudyState.QUEUED.value,
        stopping=False,
        priority=spec.priority,
        revision=0,
        state_revision=0,
        next_number=0,
        num_enqueued=0,
        num_repeats=0,
        num_open=0,
        device_seconds=0.0,
        virtual_seconds=virtual_start(tx),
        data_fingerprint=data_fingerprint,
        projected_revision=0,
        created_at=tx.now,
    )
    Ledger(tx, row.id).set_study_state(StudyState.QUEUED)
    return row


def changed_spec(tx: Transaction, name: str, changes: Mapping[str, Any]) -> StudySpec:
    """The spec of a study, but for `changes`.

    Args:
        changes: fields of a spec, a `name` among them.  A part is changed field by field, a
            parameter of the space, and a task or pruner that becomes another, as a whole; None
            takes a field out.

    Raises:
        NotFound: there is no study of that name.
        InvalidSpec: a field cannot be used.
    """
    problems: list[tuple[str, str]] = []
    spec = _merged(find(tx, name).spec.model_dump(mode="json"), changes, problems)
    if problems:
        raise InvalidSpec(problems)
    return parse_spec(spec)


def _merged(old: Any, new: Any, problems: list[tuple[str, str]], path: tuple[str, ...] = ()) -> Any:
    """A merge patch (RFC 7396), but only so deep, and only of a part of the same kind.

    Appends to `problems` what is to be taken out and is not there.
    """
    if len(path) == 2 or not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    if path in _OF_A_KIND and new.get("name", old["name"]) != old["name"]:
        return new  # another kind has other fields
    for key, value in new.items():
        if value is None and key not in old:
            problems.append((".".join((*path, key)), "is not a field here"))
    merged = {
        key: _merged(old.get(key), value, problems, (*path, key)) for key, value in new.items()
    }
    return {key: value for key, value in {**old, **merged}.items() if new.get(key, 0) is not None}


def check_num_listed(space: Space) -> None:
    """Raises InvalidInput where a space lists too many values, which earlier versions took."""
    if (num_listed := space.num_listed) > MAX_VALUES_OF_ALL:
        reason = f"lists {num_listed} values, and may list {MAX_VALUES_OF_ALL} in all"
        raise InvalidInput([("space", f"{reason}; a range has any number without a list")])


def check_limit(tx: Transaction, owner: str | None, max_open: int) -> None:
    """Raises LimitExceeded where the owner can have no more unfinished studies."""
    if tx.studies.num_open_of(owner) >= max_open:
        raise LimitExceeded(f"{max_open} studies are unfinished; end one before adding another")


def virtual_start(tx: Transaction) -> float:
    """A newcomer starts level with the study that has had least: it owes nobody, nobody owes it."""
    return min((study.virtual_seconds for study in tx.studies.servable()), default=0.0)


def _fingerprint(
    tx: Transaction,
    spec: StudySpec,
    local_datasets: Sequence[DatasetCard],
    left_out: Mapping[str, str],
) -> str | None:
    """The fingerprint of the study's data, where everybody who has the data set agrees on it."""
    name = spec.dataset
    if name is None:
        return None
    known = {card.name: {card.fingerprint} for card in local_datasets}
    for worker in tx.workers.all(live_only=True):
        for dataset in worker.datasets:
            known.setdefault(dataset["name"], set()).add(dataset["fingerprint"])
    if name not in known and name not in BUILT_IN:
        names = ", ".join(sorted({*known, *BUILT_IN}))
        reason = f"no worker has a data set {name!r}; known: {names}"
        if name in left_out:
            reason += f"; a folder of that name is left out: {left_out[name]}"
        else:
            reason += "; others are folders of a worker's --data-root (RIDGELINE_DATA_ROOT)"
            if name in SOURCES:
                reason += f", into which `ridgeline data download {name}` brings this one"
        raise InvalidInput([("task.dataset", reason)])
    fingerprints = known.get(name, set())
    return fingerprints.pop() if len(fingerprints) == 1 else None


def _refuse_unfit(tx: Transaction, spec: StudySpec, local_datasets: Sequence[DatasetCard]) -> None:
    """Refuse data that nobody can train on as the spec asks for it: each run would fail."""
    found = [one for one in catalog.datasets(tx, local_datasets) if one.name == spec.dataset]
    if not found and spec.dataset in BUILT_IN:
        problems = [list(fitting.misread_built_in(spec))]
    else:
        problems = [list(fitting.unfit(spec, one)) for one in found]
    if problems and all(problems):
        raise InvalidInput(problems[0])


def find(tx: Transaction, name: str) -> StudyRow:
    """The row of a study.

    Raises:
        NotFound: there is no study of that name.
    """
    row = tx.studies.find(name)
    if row is None:
        hint = "; a comparison has that name" if tx.comparisons.find(name) else ""
        raise NotFound(f"there is no study named {name}{hint}")
    return row


def get(tx: Transaction, name: str) -> Study:
    """A study.

    Raises:
        NotFound: there is no study of that name.
    """
    return views.study(tx, find(tx, name))


def list_page(
    tx: Transaction,
    *,
    page_size: int,
    cursor: int | None,
    states: Collection[StudyState] = (),
    archived: bool = False,
) -> tuple[list[Study], int | None]:
    """Studies in one of `states`, or in any, newest first, and the cursor of the next page.

    Archived ones only where asked for.  A page is shorter where its specs are long.
    """
    sizes = tx.studies.spec_sizes(
        limit=page_size + 1, below_id=cursor, states=states, archived=archived
    )
    limit = max(1, paging.num_fitting(sizes[:page_size], paging.MAX_PAGE_BYTES))
    rows = tx.studies.page(limit=limit, below_id=cursor, states=states, archived=archived)
    more = rows[-1].id if len(sizes) > limit else None
    return [views.study(tx, row) for row in rows], more


def apply_verb(tx: Transaction, name: str, verb: Verb) -> Study:
    """Pause, resume, stop, cancel, archive or unarchive a study; what is done already stays.

    Of a large study some trials may still have to be cancelled then: see `perform_verb`.

    Raises:
        NotFound: there is no study of that name.
        Conflict: the study's state does not allow it.
    """
    ledger = Ledger(tx, find(tx, name).id)
    study = ledger.study
    if not verb_is_done(verb, study.state, stopping=study.stopping, archived=study.archived):
        target = STUDY_VERBS[verb].get(study.state)
        if target is None:
            raise Conflict(
                f"a study that is {study.state} cannot be told to {verb}: {_way_on(study.state)}"
            )
        match verb:
            case "stop":
                check_stands_alone(
                    tx,
                    study,
                    ", whose arms have the same budget; cancel it, which leaves the arm out, or "
                    "cancel that as a whole",
                )
                ledger.stop()
            case "archive" | "unarchive":
                ledger.set_archived(verb == "archive")
            case "resume" if study.started_at is None:
                ledger.set_study_state(StudyState.QUEUED)
            case _:
                ledger.set_study_state(target)
    ledger.wind_up()
    return views.study(tx, study)


def check_stands_alone(tx: Transaction, study: StudyRow, way_on: str) -> None:
    """Raises a Conflict, which ends with `way_on`, where a study is a part of a comparison."""
    if (comparison := tx.comparisons.owner_of(study.id)) is not None:
        raise Conflict(f"{study.name} is a part of the comparison {comparison}{way_on}")


def _way_on(state: StudyState) -> str:
    if state in OPEN_STUDY:
        return "it has not ended; stop or cancel it first"
    if state is StudyState.CANCELLED:
        return "it was cancelled for good; clone it to search again"
    return "it has ended; extend it, retry its failures, or clone it"


def perform_verb(
    store: Store, name: str, verb: Verb, *, remember: Callable[[Transaction, Study], None]
) -> Study:
    """The same for a study of any size, wound up in as many transactions as it takes.

    It has its new state from the first on.  Where this process ends before the last, whoever comes
    next goes on: a repetition, or any api's maintenance.

    Args:
        remember: stores the answer in the last transaction.

    Raises:
        NotFound: there is no study of that name.
        Conflict: the study's state does not allow it.
    """
    with store.transaction() as tx:
        study = apply_verb(tx, name, verb)
        is_done = _is_wound_up(study)
        if is_done:
            remember(tx, study)
    while not is_done:
        with store.transaction() as tx:
            ledger = Ledger(tx, find(tx, name).id)
            is_done = ledger.wind_up()
            if is_done:
                study = views.study(tx, ledger.study)
                remember(tx, study)
    return study


def _is_wound_up(study: Study) -> bool:
    if study.state in OPEN_STUDY:
        return not study.stopping or study.trials.waiting == 0
    return study.trials.waiting + study.trials.running == 0


def wind_up_all(store: Store) -> None:
    """Cancel what studies still have open that have ended or are to stop, each study's in parts."""
    with store.reading() as tx:
        study_ids = tx.studies.to_wind_up()
    for study_id in study_ids:
        is_done = False
        while not is_done:
            with store.transaction() as tx:
                ledger = Ledger.of_found(tx, study_id)
                is_done = ledger is None or ledger.wind_up()


def delete(tx: Transaction, name: str) -> Study:
    """Delete a study that has ended, with its trials and its copy in Optuna's tables.

    Returns it as it was.

    Raises:
        NotFound: there is no study of that name.
        Conflict: it has not ended, or is a part of a comparison.
    """
    row = tx.studies.lock(find(tx, name).id)
    # First: who cancels it to delete it would have the arm left out for good, and still be refused.
    check_stands_alone(tx, row, "; delete that as a whole")
    if row.state in OPEN_STUDY:
        raise Conflict(f"{name} is {row.state}; cancel it before deleting it")
    found = views.study(tx, row)
    tx.artifacts.doom_of_study(row.id)
    tx.studies.delete(row.id, now=tx.now)
    return found


def best(tx: Transaction, name: str) -> Winner:
    """The best complete trial by all its seeds; ties go to the smaller number.

    Raises:
        NotFound: there is no such study, or none of its trials is complete.
    """
    row = find(tx, name)
    winner = winner_of(tx.trials, row.id, row.spec)
    if winner is None:
        raise NotFound(f"no trial of {name} is complete yet")
    (trial,) = views.trials(tx, name, [winner.trial])
    return Winner(**dict(trial), standing=views.standing(tx, row.spec, winner))


def export_csv(tx: Transaction, name: str) -> str:
    """All trials as CSV: one line a run, the trial's columns repeated.

    Parameters and metrics have prefixes, since people name them as they like; those of Optuna's
    `trials_dataframe`.
    """
    study = find(tx, name)
    spec = study.spec
    trials = tx.trials.page(study.id)
    runs = tx.runs.of_trials([trial.id for trial in trials])
    metrics = sorted(
        {key for of_one in runs.values() for run in of_one for key in run.metrics or {}}
    )
    measures = {
        run.id: flat(Measures.model_validate(run.measures))
        for of_one in runs.values()
        for run in of_one
        if run.measures
    }
    seen = sorted({key for of_run in measures.values() for key in of_run})
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["number", "trial_state", "trial_reason", "trial_value",
         *(f"params_{key}" for key in spec.space.names), "replicate", "seed", "run_state",
         "run_reason", "run_value", "kept_epoch", *(f"metrics_{key}" for key in metrics),
         *(f"measures_{key}" for key in seen), "attempt", "device_seconds", "program",
         "pruned_by_version"]
    )  # fmt: skip
    for trial in trials:
        for run in runs[trial.id]:
            writer.writerow(
                [trial.number, trial.state, trial.reason, trial.value,
                 *(_cell(trial.config.get(key)) for key in spec.space.names), run.replicate,
                 run.seed, run.state, run.reason, run.value, run.kept_epoch,
                 *((run.metrics or {}).get(key) for key in metrics),
                 *(measures.get(run.id, {}).get(key) for key in seen), run.attempt,
                 run.device_seconds, run.program, run.pruned_by_version]
            )  # fmt: skip
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula is quoted, as OWASP advises for CSV."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def events(tx: Transaction, name: str, *, after: int, limit: int) -> tuple[list[Event], bool]:
    """What changed past revision `after`, in order, each thing in its newest state.

    Changes of one thing that lie between two reads are told as one.  The flag says that the study
    has ended and nothing will follow.
    """
    study = find(tx, name)
    found = list(_changes(tx, study, after, limit))
    found.sort(key=lambda event: event.id)
    complete = len(found) <= limit
    return found[:limit], complete and study.state not in OPEN_STUDY


def _changes(tx: Transaction, study: StudyRow, after: int, limit: int) -> Iterator[Event]:
    if study.state_revision > after:
        data = {
            "state": study.state,
            "stopping": study.stopping,
            "archived": study.archived,
            "reason": study.reason,
        }
        yield Event(id=study.state_revision, type="study", data={"name": study.name, **data})
    for trial in tx.trials.changed_since(study.id, after, limit=limit + 1):
        yield Event(id=trial.revision, type="trial", data=_trial_data(trial))
    for number, run in tx.runs.changed_since(study.id, after, limit=limit + 1):
        data = views.run(run).model_dump(mode="json", exclude={"log_tail"})
        yield Event(id=run.revision, type="run", data={"trial": number, **data})
    for report in tx.runs.reports_of(study.id, above_revision=after, limit=limit + 1):
        yield Event(
            id=report.revision,
            type="report",
            data={
                "trial": report.trial_number,
                "replicate": report.replicate,
                "epoch": report.epoch,
                "metrics": dict(report.metrics),
            },
        )


def _trial_data(trial: TrialRow) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "config": trial.config,
        "value": trial.value,
    }
