"""What studies have taken over from others, in the database: never changed once it is there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from ridgeline.search.history import History
from ridgeline.search.space import Space
from ridgeline.search.spec import StudySpec
from ridgeline.search.warm_start import TRIALS, SourceTrial, history_of
from ridgeline.service.store.rows import SourceRow
from ridgeline.service.store.tables import sources

_COLUMNS = [sources.c[name] for name in SourceRow._fields]
_MAX_STUDIES = 64


class Sources:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(
        self, study_id: int, rows: Sequence[tuple[SourceRow, Sequence[SourceTrial]]]
    ) -> None:
        """Add the sources of a study, in the order of its spec."""
        values = [
            {
                **row._asdict(),
                "study_id": study_id,
                "position": position,
                "trials": TRIALS.dump_python(tuple(trials), mode="json"),
            }
            for position, (row, trials) in enumerate(rows)
        ]
        if values:
            self._connection.execute(insert(sources), values)

    def of_study(self, study_id: int) -> list[SourceRow]:
        """The sources of a study, without their trials."""
        query = select(*_COLUMNS).where(sources.c.study_id == study_id).order_by(sources.c.position)
        return [_source(row) for row in self._connection.execute(query)]

    def trials_of(self, study_id: int) -> list[tuple[SourceRow, tuple[SourceTrial, ...]]]:
        """The sources of a study, with the trials that it took over."""
        query = (
            select(*_COLUMNS, sources.c.trials)
            .where(sources.c.study_id == study_id)
            .order_by(sources.c.position)
        )
        return [
            (_source(row[:-1]), TRIALS.validate_python(tuple(row[-1])))
            for row in self._connection.execute(query)
        ]

    def histories(self, study_id: int, space: Space) -> tuple[History, ...]:
        """The sources of a study as its sampler reads them."""
        return tuple(
            history_of(space, row.parameters, trials) for row, trials in self.trials_of(study_id)
        )


class SourceHistories:
    """The sources of the studies asked for last, as samplers read them; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[History, ...]] = OrderedDict()

    def of(self, study_id: int, spec: StudySpec, found: Sources) -> tuple[History, ...]:
        """The sources of a study; nobody may change them."""
        if not spec.warm_start:
            return ()
        with self._lock:
            known = self._known.get(study_id)
            if known is None:
                known = self._known[study_id] = found.histories(study_id, spec.space)
            self._known.move_to_end(study_id)
            while len(self._known) > _MAX_STUDIES:
                self._known.popitem(last=False)
            return known


def _source(row: Sequence[Any]) -> SourceRow:
    study, revision, parameters, *others = row
    return SourceRow(study, revision, tuple(parameters), *others)
