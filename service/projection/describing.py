"""What the dashboard shows of a study beside its trials: metric names, the note and figures.

Each follows from our rows and from the mark of the copy (`marks`), so that it can be checked, and
made anew.  Only the table of arms in a note is told from outside (`set_arms`): it is about other
studies, which this one's transaction has not locked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from ridgeline.search.spec import StudySpec
from ridgeline.service.projection import notes
from ridgeline.service.projection.graphs import learning_curves
from ridgeline.service.projection.marks import MARK, Mark, counted, mark_due, mark_of
from ridgeline.service.projection.notes import NOTE_VERSION, ArmsTable, chunks
from ridgeline.service.projection.optuna_tables import STUDY_SYSTEM_ATTRS, attribute_rows
from ridgeline.service.store.bulk import upsert_rows
from ridgeline.service.store.trials import Trials
from ridgeline.service.winners import Winner, winner_of

# Names that optuna 5.0 (study.py) and optuna-dashboard 0.21 (_custom_plot_data.py) read.
_METRIC_NAMES = "study:metric_names"
_GRAPH = "dashboard:plot_data:"
_OUR_GRAPHS = f"{_GRAPH}learning-curves-"

ARMS = "ridgeline:arms"
ARMS_VERSION = "ridgeline:arms_version"


def describe(
    connection: Connection,
    study: Row[Any],
    spec: StudySpec,
    copy_id: int,
    *,
    anew: bool = False,
) -> None:
    """Bring note and figures up to date, where they are not.

    Args:
        anew: also where nothing of the study itself has changed.
    """
    best = _best_of(connection, study, spec)
    mark = mark_due(connection, study, spec, best)
    is_new = mark != mark_of(study)
    if is_new or anew:
        mark = mark if is_new else mark.with_version(mark.version + 1)
        _write(connection, study, spec, copy_id, best, mark)


def set_arms(connection: Connection, copy_id: int, arms: ArmsTable, version: int) -> None:
    """Have the note of a study show another table of arms once it is written next."""
    _set(connection, copy_id, {ARMS: asdict(arms), ARMS_VERSION: version})


def _write(
    connection: Connection,
    study: Row[Any],
    spec: StudySpec,
    copy_id: int,
    best: Winner | None,
    mark: Mark,
) -> None:
    old = mark_of(study)
    found = _stored(connection, copy_id, for_update=True)
    attributes: dict[str, Any] = {_METRIC_NAMES: [spec.objective.metric]}
    if notes.is_personal(found, old, spec):
        # A version that moved on could be the one that the person's note has.
        mark = mark.with_version(-1 if old is None else old.version)
    else:
        notes.delete_note(connection, copy_id)
        arms = _arms_of(found)
        attributes |= notes.note_attributes(connection, study, spec, best, mark, arms)
    if old is None or mark.drawn_at != old.drawn_at:
        key = STUDY_SYSTEM_ATTRS.c.key
        connection.execute(
            delete(STUDY_SYSTEM_ATTRS).where(
                STUDY_SYSTEM_ATTRS.c.study_id == copy_id,
                key.startswith(_OUR_GRAPHS, autoescape=True),
            )
        )
        attributes |= _graph_attributes(connection, study, spec, mark)
    _set(connection, copy_id, {**attributes, MARK: mark.as_attribute()})


def _graph_attributes(
    connection: Connection, study: Row[Any], spec: StudySpec, mark: Mark
) -> dict[str, str]:
    graphs = learning_curves(connection, study.id, spec, until_revision=mark.drawn_at)
    return {
        key: part
        for graph_id, graph in graphs.items()
        for key, part in chunks(f"{_GRAPH}{graph_id}:", graph).items()
    }


def expected_rows(
    connection: Connection, study: Row[Any], spec: StudySpec, copy_id: int
) -> Iterator[Mapping[str, Any]]:
    """The system attributes of a copy that is as it should be.

    What people have written, and what an earlier version of this program has described in its own
    way, is expected as it is.
    """
    found = _stored(connection, copy_id)
    mark = mark_of(study)
    expected: dict[str, Any] = {_METRIC_NAMES: [spec.objective.metric]}
    as_it_is = {key for key in found if notes.is_of_a_trial(key)}
    if MARK not in found or notes.is_personal(found, mark, spec):
        as_it_is |= {key for key in found if notes.is_of_the_study(key)}
    if MARK in found:
        best = _best_of(connection, study, spec)
        due = mark_due(connection, study, spec, best)
        if due == mark:
            due = counted(connection, study, due)
        arms = _arms_of(found)
        if arms is not None:
            as_it_is |= {ARMS, ARMS_VERSION}
        if NOTE_VERSION not in as_it_is:
            expected |= notes.note_attributes(connection, study, spec, best, due, arms)
        expected |= _graph_attributes(connection, study, spec, due)
        expected[MARK] = due.as_attribute()
    yield from attribute_rows("study_id", {copy_id: expected})
    for key in as_it_is & found.keys():
        yield {"study_id": copy_id, "key": key, "value_json": found[key]}


def _stored(connection: Connection, copy_id: int, *, for_update: bool = False) -> dict[str, str]:
    """The system attributes of a copy, as they are stored.

    Args:
        for_update: whether nobody else may write them until this transaction has.
    """
    query = select(STUDY_SYSTEM_ATTRS.c.key, STUDY_SYSTEM_ATTRS.c.value_json).where(
        STUDY_SYSTEM_ATTRS.c.study_id == copy_id,
        ~STUDY_SYSTEM_ATTRS.c.key.startswith(_OUR_GRAPHS, autoescape=True),
    )
    rows = connection.execute(query.with_for_update() if for_update else query)
    return {row.key: row.value_json for row in rows}


def _arms_of(found: Mapping[str, str]) -> ArmsTable | None:
    if ARMS not in found:
        return None
    try:
        return ArmsTable(**json.loads(found[ARMS]))
    except (TypeError, ValueError):
        return None


def _set(connection: Connection, copy_id: int, attributes: Mapping[str, Any]) -> None:
    rows = attribute_rows("study_id", {copy_id: attributes})
    upsert_rows(connection, STUDY_SYSTEM_ATTRS, rows, key=("study_id", "key"))


def _best_of(connection: Connection, study: Row[Any], spec: StudySpec) -> Winner | None:
    """The best complete trial of a study, which its note names."""
    return winner_of(Trials(connection), study.id, spec)
