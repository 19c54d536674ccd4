"""The study itself in Optuna's tables: name, direction and attributes."""

from __future__ import annotations

from typing import Any

from optuna.study import StudyDirection
from sqlalchemy import Connection, Row, and_, delete, insert, select, update
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
from ridgeline.service.store.bulk import upsert_rows
from ridgeline.service.store.ids import next_id
from ridgeline.service.store.tables import deleted_studies, studies, trials


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
    rows = attribute_rows("study_id", {copy_id: attributes})
    upsert_rows(connection, STUDY_USER_ATTRS, rows, key=("study_id", "key"))
    if study.state_revision > above_revision:
        # A study that goes on has no reason any more.
        gone = [key for key, value in attributes.items() if value is None]
        connection.execute(
            delete(STUDY_USER_ATTRS).where(
                STUDY_USER_ATTRS.c.study_id == copy_id, STUDY_USER_ATTRS.c.key.in_(gone)
            )
        )
    return copy_id


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
        "ended_trials": study.next_number - study.num_open,
        "device_seconds": study.device_seconds,
    }
