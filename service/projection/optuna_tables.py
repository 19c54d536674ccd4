"""Optuna's own tables, as its storage declares them, and writing attributes into them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

STUDIES: Table = models.StudyModel.__table__
DIRECTIONS: Table = models.StudyDirectionModel.__table__
STUDY_USER_ATTRS: Table = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM_ATTRS: Table = models.StudySystemAttributeModel.__table__
TRIALS: Table = models.TrialModel.__table__
PARAMS: Table = models.TrialParamModel.__table__
VALUES: Table = models.TrialValueModel.__table__
STEPS: Table = models.TrialIntermediateValueModel.__table__
TRIAL_USER_ATTRS: Table = models.TrialUserAttributeModel.__table__

stored_value = models.TrialValueModel.value_to_stored_repr
stored_step_value = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr

_INSERT: Mapping[str, Callable[[Table], Any]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


def naive_utc(seconds: float | None) -> datetime | None:
    """A time as Optuna stores it: UTC, without saying so; its readers turn it into local time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def write_attributes(
    connection: Connection, table: Table, attributes: Mapping[int, Mapping[str, Any]]
) -> None:
    """Set attributes, by id of study or trial and by name; what stands already is not written.

    Values of None are left out: the dashboard sorts a column only where every value is a number.
    """
    owner = table.c["study_id" if "study_id" in table.c else "trial_id"]
    rows = [
        {owner.name: owner_id, "key": key, "value_json": json.dumps(value)}
        for owner_id, of_one in attributes.items()
        for key, value in of_one.items()
        if value is not None
    ]
    if rows:
        insert = _INSERT[connection.dialect.name](table)
        value_json = insert.excluded.value_json
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[owner, table.c.key],
                set_={"value_json": value_json},
                where=table.c.value_json != value_json,
            ),
            rows,
        )
