"""Histories as samplers read them, kept in memory and brought up to date by revision."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import OPEN_TRIAL
from ridgeline.service.store.recent import Recent

if TYPE_CHECKING:
    from ridgeline.service.store.rows import StudyRow, TrialRow
    from ridgeline.service.store.trials import Trials


class Histories:
    """The histories of the studies asked for last; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Recent[tuple[int, History]] = Recent()

    def at(self, study: StudyRow, spec: StudySpec, trials: Trials) -> History:
        """The history of `study` at the revision it shows, as a copy of the caller's own.

        `trials` must see the same snapshot that `study` was read from.
        """
        with self._lock:
            revision, history = self._known.get(study.id) or (-1, None)
            if history is None or revision > study.revision or history.space != spec.space:
                revision, history = -1, History(spec.space)
            if revision < study.revision:
                changed = trials.changed_since(study.id, revision, limit=None)
                for trial in sorted(changed, key=lambda trial: trial.number):
                    put(history, trial)
            self._known.put(study.id, (study.revision, history))
            return history.copy()


def put(history: History, trial: TrialRow) -> None:
    """Write a trial into a history, as it stands.

    Samplers see a trial that waits as one that runs: which of the two it was at a given revision
    is not kept, and a suggestion must be derivable again.
    """
    is_open = trial.state in OPEN_TRIAL
    history.put(
        trial.number,
        trial.config,
        enqueued=trial.origin != "sampler",
        state=TrialStatus.RUNNING if is_open else TrialStatus[trial.state.name],
        value=trial.value,
    )
