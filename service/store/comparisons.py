"""Comparisons in the database, and which studies are theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, Text, cast, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ridgeline.search.comparison import ComparisonSpec
from ridgeline.service.errors import Conflict
from ridgeline.service.lifecycle import ENDED_STUDY
from ridgeline.service.store.bulk import one_of
from ridgeline.service.store.rows import ArmStudyRow, ComparisonRow
from ridgeline.service.store.tables import comparison_studies, comparisons, studies

_SPEC_TEXT = cast(comparisons.c.spec, Text).label("spec")
_COLUMNS = [_SPEC_TEXT, *(column for column in comparisons.c if column.name != "spec")]
_LINK_COLUMNS = [comparison_studies.c[name] for name in ArmStudyRow._fields]


class Comparisons:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, **values: Any) -> ComparisonRow:
        """Add a comparison; nobody else sees it before this transaction's end.

        Raises:
            Conflict: somebody else has just taken the name; the transaction must end.
        """
        try:
            self._connection.execute(insert(comparisons).values(**values))
        except IntegrityError as exc:
            raise Conflict(f"the name {values['name']} was just taken; choose another") from exc
        row = self.find(values["name"])
        assert row is not None, "it was just inserted"
        return row

    def find(self, name: str) -> ComparisonRow | None:
        return self._one(select(*_COLUMNS).where(comparisons.c.name == name))

    def lock(self, name: str) -> ComparisonRow | None:
        """The comparison, locked until the transaction ends; lock it before any study."""
        return self._one(select(*_COLUMNS).where(comparisons.c.name == name).with_for_update())

    def update(self, comparison_id: int, **values: Any) -> None:
        """Change a comparison that is locked."""
        self._connection.execute(
            update(comparisons).where(comparisons.c.id == comparison_id).values(**values)
        )

    def delete(self, comparison_id: int) -> None:
        """Delete a comparison that is locked; its studies stay, and belong to nobody."""
        of_it = comparison_studies.c.comparison_id == comparison_id
        self._connection.execute(delete(comparison_studies).where(of_it))
        self._connection.execute(delete(comparisons).where(comparisons.c.id == comparison_id))

    def page(self, *, limit: int, below_id: int | None) -> list[ComparisonRow]:
        """At most `limit` comparisons, newest first."""
        query = _of_page(select(*_COLUMNS), limit, below_id)
        return [_comparison(row) for row in self._connection.execute(query).mappings()]

    def spec_sizes(self, *, limit: int, below_id: int | None) -> list[int]:
        """How long the specs of the comparisons of `page` are as text."""
        query = _of_page(select(func.length(_SPEC_TEXT)), limit, below_id)
        return [int(size) for size in self._connection.execute(query).scalars()]

    def num_all(self) -> int:
        query = select(func.count()).select_from(comparisons)
        return int(self._connection.execute(query).scalar_one())

    # ---- their studies

    def add_study(self, study: ArmStudyRow) -> None:
        """Say that a study is a comparison's.

        Raises:
            IntegrityError: it belongs to one, or the arm has a search, or one for that winner.
        """
        self._connection.execute(insert(comparison_studies).values(study._asdict()))

    def studies_of(self, comparison_ids: Sequence[int]) -> dict[int, list[ArmStudyRow]]:
        """The studies of each comparison; of an arm, the one for its newest winner comes last."""
        query = (
            select(*_LINK_COLUMNS)
            .where(one_of(self._connection, comparison_studies.c.comparison_id, comparison_ids))
            # A later winner has a higher number: those before were all ended, and not as good.
            .order_by(comparison_studies.c.winner, comparison_studies.c.study_id)
        )
        found: dict[int, list[ArmStudyRow]] = defaultdict(list)
        for row in self._connection.execute(query):
            found[row.comparison_id].append(ArmStudyRow(*row))
        return found

    def owner_of(self, study_id: int) -> str | None:
        """The name of the comparison that a study belongs to, if there is one."""
        query = (
            select(comparisons.c.name)
            .join(comparison_studies, comparison_studies.c.comparison_id == comparisons.c.id)
            .where(comparison_studies.c.study_id == study_id)
        )
        name: str | None = self._connection.execute(query).scalar()
        return name

    def release(self, study_id: int) -> None:
        """Say that a study is no comparison's any more."""
        self._connection.execute(
            delete(comparison_studies).where(comparison_studies.c.study_id == study_id)
        )

    def note_seen(self, search_id: int, num_trials: int | None) -> None:
        """Note among how many trials of a search its winner was looked for; None: look again."""
        self._connection.execute(
            update(comparison_studies)
            .where(comparison_studies.c.study_id == search_id)
            .values(num_seen=num_trials)
        )

    def to_advance(self) -> list[tuple[str, str]]:
        """Comparisons that go on, each with an arm whose search has ended and was not looked at."""
        links = comparison_studies
        query = (
            select(comparisons.c.name, links.c.arm)
            .join(links, links.c.comparison_id == comparisons.c.id)
            .join(studies, studies.c.id == links.c.study_id)
            .where(
                comparisons.c.told_to == "run",
                links.c.winner.is_(None),
                studies.c.state.in_([state.value for state in ENDED_STUDY]),
                or_(links.c.num_seen.is_(None), links.c.num_seen != studies.c.next_number),
            )
            .order_by(links.c.study_id)
        )
        return [(row.name, row.arm) for row in self._connection.execute(query)]

    def _one(self, query: Select[Any]) -> ComparisonRow | None:
        row = self._connection.execute(query).mappings().first()
        return None if row is None else _comparison(row)


def _of_page(query: Select[Any], limit: int, below_id: int | None) -> Select[Any]:
    of_page = query.order_by(comparisons.c.id.desc()).limit(limit)
    return of_page if below_id is None else of_page.where(comparisons.c.id < below_id)


@lru_cache(maxsize=128)
def _parsed_spec(text: str) -> ComparisonSpec:
    return ComparisonSpec.model_validate_json(text)


def _comparison(row: Mapping[Any, Any]) -> ComparisonRow:
    return ComparisonRow(**{**row, "spec": _parsed_spec(row["spec"])})
