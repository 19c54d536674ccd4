"""What a study takes over of the trials of other studies, its sources, for its sampler.

Of each source the parameters that the two have in common, of the trials that have ended and are in
the study's ranges; where there are very many, those that tell most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from ridgeline.search.fields import Direction, SpecPart
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.ranges import Value
from ridgeline.search.samplers.axes import Cells
from ridgeline.search.samplers.outcomes import informative, ranks
from ridgeline.search.space import Config, Space

MAX_TRIALS = 256
"""Trials of one source that a study takes over, at most."""

_CLASSES = {"COMPLETE": 0, "PRUNED": 1, "FAIL": 2}
"""Any complete trial ranks before any pruned one, and that before any failure."""


class SourceTrial(SpecPart):
    """A trial of a source: the parameters in common, and what came of it; no value of a failure."""

    config: Config
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None


TRIALS = TypeAdapter(tuple[SourceTrial, ...])


def shared_parameters(space: Space, source: Space) -> tuple[str, ...]:
    """The parameters that a study and a source have in common, in the order of the study's."""
    return tuple(name for name in space.names if name in source)


def problem_of(space: Space, shared: Iterable[str], config: Mapping[str, Value]) -> str | None:
    """Why a source's trial is not in a study's ranges, or None where it is."""
    for name in shared:
        if name in config and (reason := space[name].problem(config[name])) is not None:
            return f"{name} {reason}"
    return None


def most_telling(
    states: Sequence[str], values: Sequence[float | None], direction: Direction, count: int
) -> Cells:
    """Where `count` trials are that tell most: half of them the best, the others of every rank."""
    sign = -1.0 if direction == "maximize" else 1.0
    value_n = np.array([np.nan if value is None else sign * value for value in values])
    class_n = np.array([_CLASSES[state] for state in states], np.int8)
    return informative(ranks(value_n, class_n), count)


def history_of(space: Space, shared: Iterable[str], trials: Iterable[SourceTrial]) -> History:
    """A source as a sampler reads it: a history over the parameters in common.

    Whichever of these its trials have: it may have had other conditions, or none.
    """
    parameters = {name: space[name].model_copy(update={"when": None}) for name in shared}
    history = History(Space(parameters))
    for number, trial in enumerate(trials):
        state = TrialStatus[trial.state]
        history.put(number, trial.config, enqueued=False, state=state, value=trial.value)
    return history


def fingerprint(
    study: str, revision: int, shared: Sequence[str], trials: Iterable[SourceTrial]
) -> str:
    """SHA-256 of what was taken over, and of what."""
    told = [trial.model_dump(mode="json") for trial in trials]
    content = [study, revision, list(shared), told]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
