"""Optuna's own tables, as its storage declares them, and values as it stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import Table

STUDIES: Table = models.StudyModel.__table__
DIRECTIONS: Table = models.StudyDirectionModel.__table__
STUDY_USER_ATTRS: Table = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM_ATTRS: Table = models.StudySystemAttributeModel.__table__
TRIALS: Table = models.TrialModel.__table__
PARAMS: Table = models.TrialParamModel.__table__
VALUES: Table = models.TrialValueModel.__table__
STEPS: Table = models.TrialIntermediateValueModel.__table__
TRIAL_USER_ATTRS: Table = models.TrialUserAttributeModel.__table__
TRIAL_SYSTEM_ATTRS: Table = models.TrialSystemAttributeModel.__table__
HEARTBEATS: Table = models.TrialHeartbeatModel.__table__

stored_value = models.TrialValueModel.value_to_stored_repr
stored_step_value = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr


def naive_utc(seconds: float | None) -> datetime | None:
    """A time as Optuna stores it: UTC, without saying so; its readers turn it into local time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def attribute_rows(owner: str, attributes: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of attributes given by the id of their owner, a column of the table, and by name.

    Values of None are left out: the dashboard sorts a column only where every value is a number.
    """
    return [
        {owner: owner_id, "key": key, "value_json": json.dumps(value)}
        for owner_id, of_one in attributes.items()
        for key, value in of_one.items()
        if value is not None
    ]
