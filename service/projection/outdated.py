"""Copies whose description is out of date though their studies have not changed since."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, and_, case, cast, func, or_, select

from ridgeline.service.projection.describing import ARMS_VERSION
from ridgeline.service.projection.marks import MARK
from ridgeline.service.projection.optuna_tables import STUDIES, STUDY_SYSTEM_ATTRS
from ridgeline.service.store.tables import comparison_studies, comparisons, studies

_TOLD_TO = case((comparisons.c.told_to == "run", 0), (comparisons.c.told_to == "pause", 1), else_=2)

# What a table of arms goes by: the studies that there are, their states, and which winners were
# looked for.  None of these numbers ever falls.
_VERSION = func.sum(
    studies.c.state_revision + 1 + func.coalesce(comparison_studies.c.num_seen + 1, 0)
) * 3 + func.max(_TOLD_TO)

_VERSIONS = (
    select(comparisons.c.id, comparisons.c.name, _VERSION.label("version"))
    .join(comparison_studies, comparison_studies.c.comparison_id == comparisons.c.id)
    .join(studies, studies.c.id == comparison_studies.c.study_id)
    .group_by(comparisons.c.id, comparisons.c.name)
)


def arms_version(connection: Connection, comparison_id: int) -> int:
    """A number that is another one once the table of a comparison's arms may be."""
    of_it = _VERSIONS.where(comparisons.c.id == comparison_id)
    return int(connection.execute(of_it).one().version)


def outdated_comparisons(connection: Connection) -> list[str]:
    """Names of comparisons with a study whose note has no table of arms, or an old one."""
    now = _VERSIONS.subquery()
    query = (
        select(now.c.name)
        .distinct()
        .join(comparison_studies, comparison_studies.c.comparison_id == now.c.id)
        .join(studies, studies.c.id == comparison_studies.c.study_id)
        .join(STUDIES, _is_copied())
        .outerjoin(STUDY_SYSTEM_ATTRS, _attribute(ARMS_VERSION))
        .where(
            or_(
                STUDY_SYSTEM_ATTRS.c.value_json.is_(None),
                STUDY_SYSTEM_ATTRS.c.value_json != cast(now.c.version, Text),
            )
        )
        .order_by(now.c.name)
    )
    return list(connection.execute(query).scalars())


def undescribed_studies(connection: Connection, *, limit: int) -> list[int]:
    """Ids of studies whose copy an earlier version of this program has described, newest first."""
    query = (
        select(studies.c.id)
        .join(STUDIES, _is_copied())
        .outerjoin(STUDY_SYSTEM_ATTRS, _attribute(MARK))
        .where(STUDY_SYSTEM_ATTRS.c.value_json.is_(None))
        .order_by(studies.c.id.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def _is_copied() -> ColumnElement[bool]:
    """Whether a row of Optuna's studies is the copy of ours, and nothing is wrong with it."""
    return and_(
        STUDIES.c.study_id == studies.c.optuna_study_id,
        STUDIES.c.study_name == studies.c.name,
        studies.c.projection_error.is_(None),
    )


def _attribute(key: str) -> Any:
    return and_(
        STUDY_SYSTEM_ATTRS.c.study_id == STUDIES.c.study_id, STUDY_SYSTEM_ATTRS.c.key == key
    )
