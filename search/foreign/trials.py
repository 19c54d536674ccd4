"""Trials that another tool has finished: which of them are the best ones of a draft's space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline.search.conditions import in_words
from ridgeline.search.foreign.draft import Draft, plain
from ridgeline.search.space import Config, Space

NUM_BEST = 10


@dataclass(frozen=True)
class Tried:
    """A complete trial: its parameters by the names of the other tool, and its value."""

    params: Mapping[str, Any]
    value: float


def add_condition(
    draft: Draft, at: str, key: str, params: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> None:
    """Say when a parameter belongs to a configuration that only some trials have.

    That is where another one, a list of values, has none of the values that it has in the trials
    without the first: the first such one, since nothing but trials tells.

    Args:
        params: of the complete trials, by the names of the other tool.
        names: the draft's name of each parameter of the other tool.
    """
    having = [one for one in params if key in one]
    lacking = [one for one in params if key not in one]
    for other, name in names.items():
        if draft.space[name]["type"] != "values" or not all(other in one for one in having):
            continue
        with_it = {plain(one[other]) for one in having}
        without = {plain(one[other]) for one in lacking if other in one}
        if with_it and without and not with_it & without:
            values = [value for value in draft.space[name]["values"] if value in with_it]
            draft.space[names[key]]["when"] = {name: values}
            words = in_words({name: tuple(values)})
            draft.note(at, f"all trials that have it are those where {words}; when says so")
            return
    draft.note(at, "only some trials have it, and no other tells which; here all trials have it")


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
