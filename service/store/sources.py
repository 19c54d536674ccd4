"""What studies have taken over from others, in the database: never changed once it is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from ridgeline.search.history import History
from ridgeline.search.space import Space
from ridgeline.search.spec import StudySpec
from ridgeline.search.warm_start import TRIALS, SourceTrial, history_of
from ridgeline.service.store.recent import Recent
from ridgeline.service.store.rows import SourceRow
from ridgeline.service.store.tables import sources

_COLUMNS = [sources.c[name] for name in SourceRow._fields]


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
        return [_source(row) for row in self._connection.execute(_of_study(study_id))]

    def trials_of(self, study_id: int) -> list[tuple[SourceRow, tuple[SourceTrial, ...]]]:
        """The sources of a study, with the trials that it took over."""
        query = _of_study(study_id).add_columns(sources.c.trials)
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
        self._known: Recent[tuple[Space, tuple[History, ...]]] = Recent()

    def of(self, study_id: int, spec: StudySpec, found: Sources) -> tuple[History, ...]:
        """The sources of a study; nobody may change them."""
        if not spec.warm_start:
            return ()
        with self._lock:
            space, known = self._known.get(study_id) or (None, ())
            if space != spec.space:  # of the same parameters those of a source have no `when`
                known = found.histories(study_id, spec.space)
            self._known.put(study_id, (spec.space, known))
            return known


def _of_study(study_id: int) -> Select[Any]:
    where = sources.c.study_id == study_id
    return select(*_COLUMNS).where(where).order_by(sources.c.position)


def _source(row: Sequence[Any]) -> SourceRow:
    study, revision, parameters, *others = row
    return SourceRow(study, revision, tuple(parameters), *others)
