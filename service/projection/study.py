"""The study itself in Optuna's tables: name, direction, attributes and a note that describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.study import StudyDirection
from sqlalchemy import Connection, Row, Table, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ridgeline.search.spec import StudySpec
from ridgeline.service.projection.optuna_tables import (
    DIRECTIONS,
    HEARTBEATS,
    PARAMS,
    STEPS,
    STUDIES,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    attribute_rows,
)
from ridgeline.service.spec_in_words import facts, purpose, searched
from ridgeline.service.store.bulk import upsert_rows
from ridgeline.service.store.ids import next_id
from ridgeline.service.store.rows import TrialRow
from ridgeline.service.store.tables import deleted_studies, studies, trials
from ridgeline.service.store.trials import Trials

# Names and size that optuna 5.0 (study.py) and optuna-dashboard 0.21 (_note.py) read.
_METRIC_NAMES = "study:metric_names"
_NOTE_VERSION = "dashboard:note_ver"
_NOTE_CHUNK = "dashboard:note_str:"
_NOTE_CHUNK_CHARACTERS = 2_045


class NameTaken(Exception):
    """Optuna's tables have a study of that name that is not a copy of ours."""


def forget_copy(connection: Connection, study_id: int) -> None:
    """Note that no trial of the study has a copy."""
    connection.execute(
        update(trials).where(trials.c.study_id == study_id).values(optuna_trial_id=None)
    )


def delete_copy(connection: Connection, study_id: int) -> None:
    """Delete the copy of a study that is deleted, unless it is somebody else's by now."""
    copy_id = connection.execute(
        select(STUDIES.c.study_id)
        .join(
            deleted_studies,
            and_(
                deleted_studies.c.optuna_study_id == STUDIES.c.study_id,
                deleted_studies.c.name == STUDIES.c.study_name,
            ),
        )
        .where(deleted_studies.c.study_id == study_id)
    ).scalar()
    if copy_id is None:
        return
    delete_rows(connection, copy_id)


def delete_rows(connection: Connection, copy_id: int) -> None:
    """Delete a study of Optuna's tables with all that belongs to it."""
    trial_ids = select(TRIALS.c.trial_id).where(TRIALS.c.study_id == copy_id)
    for table in (PARAMS, VALUES, STEPS, TRIAL_USER_ATTRS, TRIAL_SYSTEM_ATTRS, HEARTBEATS):
        connection.execute(delete(table).where(table.c.trial_id.in_(trial_ids)))
    for table in (TRIALS, DIRECTIONS, STUDY_USER_ATTRS, STUDY_SYSTEM_ATTRS, STUDIES):
        connection.execute(delete(table).where(table.c.study_id == copy_id))


def write_study(
    connection: Connection, study: Row[Any], spec: StudySpec, *, above_revision: int
) -> int:
    """Bring the study's own rows up to date; its id in Optuna's tables.

    Args:
        study: our row, with the id of its copy as `copy_id`.
        above_revision: what changed at or below it has been copied before.

    Raises:
        NameTaken: the study is new and its name is not free.
    """
    copy_id: int = _create(connection, spec) if study.copy_id is None else study.copy_id
    attributes = user_attributes(study, spec)
    _set_attributes(connection, STUDY_USER_ATTRS, copy_id, attributes)
    best = best_of(connection, study, spec)
    if _noted_at(study, best) > above_revision:
        # A study that goes on has no reason any more.
        gone = [key for key, value in attributes.items() if value is None]
        connection.execute(
            delete(STUDY_USER_ATTRS).where(
                STUDY_USER_ATTRS.c.study_id == copy_id, STUDY_USER_ATTRS.c.key.in_(gone)
            )
        )
        # Chunks of a longer note before this one would be read as its end.
        connection.execute(
            delete(STUDY_SYSTEM_ATTRS).where(
                STUDY_SYSTEM_ATTRS.c.study_id == copy_id,
                STUDY_SYSTEM_ATTRS.c.key.startswith(_NOTE_CHUNK, autoescape=True),
            )
        )
        attributes = system_attributes(study, spec, best)
        _set_attributes(connection, STUDY_SYSTEM_ATTRS, copy_id, attributes)
    return copy_id


def best_of(connection: Connection, study: Row[Any], spec: StudySpec) -> TrialRow | None:
    """The best complete trial of a study, which its note names."""
    return Trials(connection).best(study.id, maximize=spec.objective.direction == "maximize")


def _noted_at(study: Row[Any], best: TrialRow | None) -> int:
    """The revision at which the note became what it is."""
    found_at = 0 if best is None else best.finished_revision or 0
    return max(int(study.state_revision), found_at)


def system_attributes(study: Row[Any], spec: StudySpec, best: TrialRow | None) -> dict[str, Any]:
    """What makes readers name the metric and show the note."""
    attributes = {
        _METRIC_NAMES: [spec.objective.metric],
        _NOTE_VERSION: _noted_at(study, best),
    }
    note = "\n".join(_note(study, spec, best))
    for index, start in enumerate(range(0, len(note), _NOTE_CHUNK_CHARACTERS)):
        attributes[f"{_NOTE_CHUNK}{index}"] = note[start : start + _NOTE_CHUNK_CHARACTERS]
    return attributes


def _set_attributes(
    connection: Connection, table: Table, copy_id: int, attributes: Mapping[str, Any]
) -> None:
    rows = attribute_rows("study_id", {copy_id: attributes})
    upsert_rows(connection, table, rows, key=("study_id", "key"))


def _create(connection: Connection, spec: StudySpec) -> int:
    values: dict[str, Any] = {"study_name": spec.name}
    remembered = (deleted_studies.c.optuna_study_id, studies.c.optuna_study_id)
    new_id = next_id(connection, STUDIES.c.study_id, *remembered)
    if new_id is not None:
        values["study_id"] = new_id
    query = insert(STUDIES).values(values).returning(STUDIES.c.study_id)
    try:
        copy_id: int = connection.execute(query).scalar_one()
    except IntegrityError as exc:
        raise NameTaken(
            f"Optuna's tables have another study named {spec.name}; rename or delete that one, "
            "and the copy of this study is made with its next change"
        ) from exc
    connection.execute(
        insert(DIRECTIONS).values(study_id=copy_id, objective=0, direction=direction(spec))
    )
    return copy_id


def direction(spec: StudySpec) -> StudyDirection:
    return StudyDirection[spec.objective.direction.upper()]


def user_attributes(study: Row[Any], spec: StudySpec) -> dict[str, Any]:
    """How the study stands; None where there is nothing to tell."""
    return {
        "state": study.state,
        "stopping": study.stopping,
        "reason": study.reason,
        "owner": study.owner,
        "task": spec.task.name,
        "dataset": spec.dataset,
        "data_fingerprint": study.data_fingerprint,
        "sampler": spec.sampler.name,
        "sampler_seed": spec.sampler.seed,
        "budget_trials": spec.num_trials,
        "budget_epochs": None if spec.external else spec.budget.epochs,
        "budget_seconds": spec.budget.seconds,
        "max_parallel": spec.max_parallel,
        "replicates": spec.replicates,
        "device_seconds": study.device_seconds,
    }


def _note(study: Row[Any], spec: StudySpec, best: TrialRow | None) -> Iterator[str]:
    """How the study stands and what it was asked, in Markdown, line by line."""
    yield purpose(spec, _code)
    yield ""
    yield f"* state: {study.state}{f': {_code(study.reason)}' if study.reason else ''}"
    if best is not None:
        config = ", ".join(f"{name} {json.dumps(value)}" for name, value in best.config.items())
        yield f"* best: trial {best.number} with {best.value:.6g}: {_code(config)}"
    yield ""
    yield "| parameter | searched |"
    yield "| --- | --- |"
    for name, parameter in spec.space.items():
        yield f"| {name} | {searched(parameter, _code)} |"
    yield ""
    for name, words in facts(spec).items():
        yield f"* {name}: {words}"
    yield ""
    yield "```json"
    yield json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)
    yield "```"


def _code(text: str) -> str:
    """A text as code in Markdown: no markup, and in a table not the end of the cell."""
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"
