"""The copy of a study's history in Optuna's own tables, brought up to date in bulk.

`project` compares what stands in our tables with what it has copied before (`projected_revision`,
`optuna_study_id`, `optuna_trial_id`) and writes the difference.  It goes by what is there, never by
what happened, so calling it again after a failure is the repair.  A copy that somebody else has
written to is told of, and made anew by the next call.  One that was deleted or renamed is made anew
at once.

What is written, and when (a live Optuna reader reads an open trial again and again, a finished one
never):

* A trial takes its Optuna id when it is first seen, in the order of the numbers, under the study's
  lock; so no reader meets a higher id before a lower one.  Its parameters, seeds and sampler come
  with it.
* A trial is written as finished together with its value, its results (user attributes) and its last
  intermediate values, in one transaction, and is left alone from then on, unless the space grows.
* Where the space has grown, the parameters of all trials are written anew: Optuna takes for one
  parameter only what has the same distribution in all trials.
* Step e of its intermediate values is the mean of the objective metric at epoch e, over those runs
  that reported it.  It is written once every run of the trial has passed e: reported e or a later
  epoch, or ended.  So a run that stopped early counts up to its last epoch, and at the end each
  step is the mean over the runs that got there.  Where a run starts again and its reports are gone,
  the steps it has not reached anew are taken back; that happens to open trials only.
* A failed trial has no value; a pruned one has the mean of its runs where all of them have one.
* The note of the study follows its state and its best trial, and figures of learning curves are
  drawn with each change of the state and each tenth of the trials (`describing`).  A note that a
  person has written is left as it is, also where a copy is made anew.
"""

from __future__ import annotations

import logging
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import Connection, and_, select, update

from ridgeline.service.projection.comparing import differences
from ridgeline.service.projection.describing import describe, set_arms
from ridgeline.service.projection.marks import MARK_COLUMN, mark_of
from ridgeline.service.projection.notes import ArmsTable, keep_personal, restore_personal
from ridgeline.service.projection.noticing import STUDY_COLUMNS, CopyChanged, check_study
from ridgeline.service.projection.optuna_tables import STUDIES
from ridgeline.service.projection.outdated import (
    arms_version,
    outdated_comparisons,
    undescribed_studies,
)
from ridgeline.service.projection.study import delete_copy, delete_rows, forget_copy, write_study
from ridgeline.service.projection.trials import rewrite_params, write_trials
from ridgeline.service.projection.versions import TABLES, examine_tables
from ridgeline.service.store.studies import COLUMNS, parsed_spaces, parsed_spec
from ridgeline.service.store.tables import studies

__all__ = [
    "TABLES",
    "ArmsTable",
    "arms_version",
    "compare",
    "describe_copy",
    "examine_tables",
    "outdated_comparisons",
    "prepare",
    "project",
    "rebuild",
    "undescribed_studies",
    "write_arms",
]

log = logging.getLogger(__name__)


def prepare(url: str) -> None:
    """Create Optuna's tables where they are missing; nothing happens where they are there.

    The caller sees to it that no other process does the same at the same time.

    Args:
        url: a SQLAlchemy URL, SQLite or PostgreSQL.

    Raises:
        RuntimeError: the tables are those of another version of Optuna; the text says what to do.
    """
    # Optuna puts its schema version in place of {SCHEMA_VERSION}, so braces need doubling.
    storage = RDBStorage(url.replace("{", "{{").replace("}", "}}"))
    storage.remove_session()
    storage.engine.dispose()


def project(connection: Connection, study_id: int) -> None:
    """Copy what has changed in one study since the last call; see the module's text.

    The copy of a study that was deleted is deleted.

    The number of statements does not depend on the number of trials, up to the size of a chunk
    (`trials.CHUNK`).  The caller holds the study's lock and wraps the call in a SAVEPOINT.

    Args:
        connection: the caller's, in its transaction.
        study_id: of our table.

    Raises:
        NameTaken: Optuna's tables have a study of this name that is not a copy of ours.
        CopyChanged: somebody else has written to the copy, and nobody was told so yet.
        SQLAlchemyError: anything the database refuses.
    """
    study = _with_copy(connection, study_id)
    if study is None:
        delete_copy(connection, study_id)
        return
    if study.copy_id is not None and study.projected_revision == study.revision:
        return
    try:
        _write(connection, study)
    except CopyChanged:
        if study.projection_error is None:
            raise
        log.warning("study %s: its copy in Optuna's tables is made anew", study.name)
        rebuild(connection, study_id)


def rebuild(connection: Connection, study_id: int) -> None:
    """Delete the copy of a study, whatever is in it, and make it anew; otherwise as `project`."""
    study = _with_copy(connection, study_id)
    if study.copy_id is None:
        _write(connection, study)
        return
    personal = keep_personal(connection, study, parsed_spec(study.spec), mark_of(study))
    delete_rows(connection, study.copy_id)
    _write(connection, _with_copy(connection, study_id))
    restore_personal(connection, _with_copy(connection, study_id), personal)


def _write(connection: Connection, study: Any) -> None:
    spec = parsed_spec(study.spec)
    above_revision = study.projected_revision
    if study.copy_id is None:
        forget_copy(connection, study.id)
        above_revision = 0
    else:
        check_study(study, spec)
    copy_id = write_study(connection, study, spec, above_revision=above_revision)
    describe(connection, study, spec, copy_id)
    if study.copy_id is not None:
        past = [p.space for p in parsed_spaces(study.past_spaces) if p.until > above_revision]
        rewrite_params(connection, study.id, spec, past)
    write_trials(connection, study.id, copy_id, spec, above_revision=above_revision)
    connection.execute(
        update(studies)
        .where(studies.c.id == study.id)
        .values(optuna_study_id=copy_id, projected_revision=study.revision, projection_error=None)
    )


def describe_copy(connection: Connection, study_id: int) -> None:
    """Write note and figures of a study anew, whose row has not changed.

    Nothing happens where the copy is behind: it is described when it is brought up to date.
    """
    study = _with_copy(connection, study_id)
    if _is_whole(study):
        describe(connection, study, parsed_spec(study.spec), study.copy_id, anew=True)


def write_arms(connection: Connection, study_id: int, *, arms: ArmsTable, version: int) -> None:
    """Give the note of a study another table of arms; otherwise as `describe_copy`.

    Args:
        version: the comparison's `arms_version` at which the table was made.
    """
    study = _with_copy(connection, study_id)
    if _is_whole(study):
        set_arms(connection, study.copy_id, arms, version)
        describe(connection, study, parsed_spec(study.spec), study.copy_id, anew=True)


def _is_whole(study: Any) -> bool:
    return study.copy_id is not None and study.projected_revision == study.revision


def compare(connection: Connection, study_id: int) -> list[str]:
    """What is not as it should be in the copy of a study, read and compared as a whole.

    Args:
        connection: of one consistent view of the database.
    """
    study = _with_copy(connection, study_id)
    if study is None:
        return []
    if study.projection_error is not None:
        return [f"all since revision {study.projected_revision} ({study.projection_error})"]
    if study.copy_id is None:
        return ["all of it: it was deleted or renamed"]
    if study.projected_revision != study.revision:
        return [f"all since revision {study.projected_revision}"]
    return list(differences(connection, study, parsed_spec(study.spec), study.copy_id))


def _with_copy(connection: Connection, study_id: int) -> Any:
    """Our row of a study with the id of its copy as `copy_id`, None where that is gone."""
    return connection.execute(
        select(*COLUMNS, STUDIES.c.study_id.label("copy_id"), *STUDY_COLUMNS, MARK_COLUMN)
        .outerjoin(
            STUDIES,
            # SQLite gives the id of a deleted study to the next one.
            and_(
                STUDIES.c.study_id == studies.c.optuna_study_id,
                STUDIES.c.study_name == studies.c.name,
            ),
        )
        .where(studies.c.id == study_id)
    ).first()
