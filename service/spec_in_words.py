"""What a study's spec says, in words for people."""

from __future__ import annotations

import json
from collections.abc import Callable

from ridgeline.search.conditions import in_words
from ridgeline.search.ranges import FloatParameter, number_text
from ridgeline.search.space import Parameter, ValuesParameter
from ridgeline.search.spec import StudySpec

Quote = Callable[[str], str]
"""Makes a text of somebody else fit for where the words are shown."""


def purpose(spec: StudySpec, quote: Quote) -> str:
    """`Maximize validation_accuracy of mlp on digits.`"""
    data = "" if spec.dataset is None else f" on {spec.dataset}"
    direction = spec.objective.direction.capitalize()
    return f"{direction} {quote(spec.objective.metric)} of {spec.task.name}{data}."


def searched(parameter: Parameter, quote: Quote) -> str:
    """The range of a parameter, and with which others it is there."""
    words = _range(parameter, quote)
    return words if parameter.when is None else f"{words}; where {quote(in_words(parameter.when))}"


def _range(parameter: Parameter, quote: Quote) -> str:
    if isinstance(parameter, ValuesParameter):
        return ", ".join(quote(json.dumps(v, ensure_ascii=False)) for v in parameter.values)
    words = f"{number_text(parameter.low)} to {number_text(parameter.high)}"
    if parameter.log:
        words += ", log"
    elif isinstance(parameter, FloatParameter) and parameter.logit:
        words += ", logit"
    if parameter.step is not None:
        words += f", in steps of {number_text(parameter.step)}"
    if isinstance(parameter, FloatParameter) and parameter.zero:
        words = f"0, or {words}"
    if parameter.prior is not None:
        words += f", around {number_text(parameter.prior.around)} by {parameter.prior.weight:g}"
    return words


def facts(spec: StudySpec) -> dict[str, str]:
    """Sampler, budget and what else decides how a study goes, by name."""
    budget, stopping = spec.budget, spec.early_stopping
    limits = [f"{spec.num_trials} trials", _at_once(spec)]
    if not spec.external:
        limits.append(f"{budget.epochs} epochs a run")
    if budget.run_seconds is not None:
        limits.append(f"{budget.run_seconds:g} s a run")
    if budget.seconds is not None:
        limits.append(f"no new trials after {budget.seconds:g} s")
    found = {
        "sampler": f"{spec.sampler.name}, seed {spec.sampler.seed}",
        "budget": ", ".join(limits),
        "runs of each trial": str(spec.num_runs),
    }
    if spec.constraints:
        found["constraints"] = ", ".join(spec.constraints)
    if spec.warm_start:
        found["warm start"] = f"from trials of {', '.join(spec.warm_start)}"
    if spec.racing is not None:
        found["racing"] = (
            f"the {spec.racing.leaders} best have {spec.racing.seeds} seeds in the end"
        )
    if spec.fresh_seeds is not None:
        found["fresh seeds"] = f"{spec.fresh_seeds}, of the winner"
    if spec.trains_on_validation:
        found["trained on"] = (
            "training and validation rows, so metrics of validation are of rows that were trained "
            "on; the test rows alone judge"
        )
    if stopping is not None:
        found["early stopping"] = f"patience {stopping.patience}, by {stopping.min_delta:g} or more"
    return found


def _at_once(spec: StudySpec) -> str:
    """How many trials may train at once; a bound that the budget never reaches is none."""
    if spec.max_parallel >= spec.num_trials:
        return "all of them at once where there is room"
    return f"at most {spec.max_parallel} at once"
