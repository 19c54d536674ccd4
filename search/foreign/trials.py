"""Trials that another tool has finished: which of them are the best ones of a draft's space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.search.foreign.draft import Draft, plain
from ridgeline.search.space import Config, Space

NUM_BEST = 10


@dataclass(frozen=True)
class Tried:
    """A complete trial: its parameters by the names of the other tool, and its value."""

    params: Mapping[str, Any]
    value: float


def tell_trials(
    draft: Draft, tried: Iterable[Tried], names: Mapping[str, str], *, num_pruned: int
) -> None:
    """Keep the best configurations, and note what the trials had that cannot be taken over.

    Args:
        names: the draft's name of each parameter of the other tool.  A configuration may lack some:
            the sampler completes what is enqueued.
    """
    if num_pruned:
        draft.note("pruner", f"is not kept with a study; {num_pruned} trials were pruned by it")
    space = Space.model_validate(draft.space)
    sign = 1 if draft.direction == "minimize" else -1
    ranked = sorted(tried, key=lambda trial: sign * trial.value)
    for trial in ranked:
        config: Config = {names[key]: plain(value) for key, value in trial.params.items()}
        if (
            not space.problems(config, missing=None)
            and (known := space.ordered(config)) not in draft.best
        ):
            draft.best.append(known)
        if len(draft.best) == NUM_BEST:
            break
    if ranked:
        draft.note(
            "trials",
            f"no call of the api takes results, so the values of {len(ranked)} trials stay behind; "
            "--best FILE writes the ten best for `ridgeline enqueue NAME --file FILE`",
        )
