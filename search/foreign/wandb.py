"""Sweeps of Weights & Biases (https://docs.wandb.ai/models/sweeps/sweep-config-keys)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import StringConstraints

from ridgeline.search.fields import MAX_EPOCHS, Direction, SamplerName, fits
from ridgeline.search.foreign.draft import (
    NO_TARGET,
    OWN_PROGRAM,
    Draft,
    Refused,
    integral,
    listed,
    mapping,
    metric_name,
    number,
    rounded,
    text,
    whole,
)
from ridgeline.search.pruners import MAX_ETA
from ridgeline.search.ranges import MAX_STEPS

SIGMAS = 2
"""How far a range reaches to both sides of the mean of what was a normal distribution."""

_Description = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$")]

_METHODS: dict[str, SamplerName] = {"grid": "grid", "random": "random", "bayes": "auto"}
_GOALS: dict[str, Direction] = {"minimize": "minimize", "maximize": "maximize"}
_FIELDS = {
    **dict.fromkeys(("method", "metric", "parameters", "name", "description", "run_cap"), ""),
    "early_terminate": "",
    "program": OWN_PROGRAM,
    "command": OWN_PROGRAM,
    "project": "studies are in no project; it is left out",
    "entity": "studies belong to no team; it is left out",
}
_METRIC_FIELDS = {
    "name": "",
    "goal": "",
    "target": NO_TARGET,
}
_CONSTANTS = ("constant",)
_CATEGORIES = ("categorical", "categorical_w_probabilities")
_NORMAL = ("normal", "q_normal", "log_normal", "q_log_normal")
_RANGES = (
    *("uniform", "int_uniform", "q_uniform", "log_uniform", "q_log_uniform"),
    *("log_uniform_values", "q_log_uniform_values", "inv_log_uniform", "inv_log_uniform_values"),
)


def of_wandb(data: Any, name: str) -> Draft:
    """The draft of a sweep; `name` is the study's where the sweep has none.

    Raises:
        Refused: it is no sweep.
    """
    sweep = mapping("", data)
    draft = Draft(name)
    if "name" in sweep:
        draft.name_it("name", text("name", sweep["name"]))
    if "description" in sweep:
        described = sweep["description"]
        if not fits(_Description, described):
            raise Refused(("description", "must be a text of up to 2,000 characters"))
        draft.description = described
    method = sweep.get("method")
    if not isinstance(method, str) or method not in _METHODS:
        raise Refused(("method", f"must be one of {', '.join(_METHODS)}"))
    draft.sampler = _METHODS[method]
    _read_metric(draft, sweep)
    if "run_cap" in sweep:
        cap = whole("run_cap", number("run_cap", sweep["run_cap"]), least=1)
        draft.limit_trials("run_cap", cap)
    if sweep.get("early_terminate") is not None:
        _read_early_terminate(draft, mapping("early_terminate", sweep["early_terminate"]))
    _read_parameters(draft, "parameters", mapping("parameters", sweep.get("parameters")), "")
    draft.note_others("", sweep, _FIELDS)
    return draft


def _read_metric(draft: Draft, sweep: Mapping[str, Any]) -> None:
    if sweep.get("metric") is None:
        return
    metric = mapping("metric", sweep["metric"])
    draft.metric = metric_name("metric.name", metric.get("name"))
    goal = metric.get("goal", "minimize")
    if not isinstance(goal, str) or goal not in _GOALS:
        raise Refused(("metric.goal", "must be minimize or maximize"))
    draft.direction = _GOALS[goal]
    draft.note_others("metric.", metric, _METRIC_FIELDS)


def _read_early_terminate(draft: Draft, rule: Mapping[str, Any]) -> None:
    """Hyperband, whose brackets are `min_iter`·eta^k, or `max_iter`/eta^k for k up to `s`."""
    at = "early_terminate"
    if rule.get("type") != "hyperband":
        draft.note(f"{at}.type", "only hyperband has a counterpart; every trial trains to its end")
        return
    numbers = {
        key: whole(f"{at}.{key}", number(f"{at}.{key}", rule[key]), least=1)
        for key in ("min_iter", "max_iter", "s", "eta")
        if rule.get(key) is not None
    }
    eta = numbers.get("eta", 3)
    if not 2 <= eta <= MAX_ETA:
        raise Refused((f"{at}.eta", f"must be between 2 and {MAX_ETA}"))
    reasons = dict.fromkeys(("type", "min_iter", "max_iter", "s", "eta"), "")
    if "min_iter" in numbers:
        lowest = numbers["min_iter"]
        for key in ("max_iter", "s"):
            reasons[key] = "rungs begin at min_iter and have no end; it is left out"
    elif "max_iter" in numbers:
        brackets = min(numbers.get("s", 1), 64)
        lowest = max(1, numbers["max_iter"] // eta**brackets)
    else:
        raise Refused((at, "needs min_iter, or max_iter and s"))
    if lowest > MAX_EPOCHS:
        raise Refused((at, f"its first bracket must be at iteration {MAX_EPOCHS} at most"))
    if rule.get("strict"):
        reasons["strict"] = "halving keeps the best 1/eta at each rung; it is left out"
    else:
        reasons["strict"] = ""
    draft.pruner = {"name": "halving", "eta": eta, "min_epochs": lowest}
    draft.note_others(f"{at}.", rule, reasons)


def _read_parameters(draft: Draft, at: str, parameters: Mapping[str, Any], prefix: str) -> None:
    for key, value in parameters.items():
        here, name = f"{at}.{key}", f"{prefix}{key}"
        parameter = mapping(here, value)
        if "parameters" in parameter:
            if len(at.split(".parameters")) > 32:
                raise Refused((here, "is nested too deeply"))
            inner = mapping(f"{here}.parameters", parameter["parameters"])
            draft.note(f"{here}.parameters", f"spaces are flat here; its names begin with {name}.")
            _read_parameters(draft, f"{here}.parameters", inner, f"{name}.")
        else:
            _read_parameter(draft, here, name, parameter)


def _read_parameter(draft: Draft, at: str, name: str, parameter: Mapping[str, Any]) -> None:
    kind = _distribution(at, parameter)
    if kind in _CONSTANTS:
        draft.add_values(f"{at}.value", name, [parameter.get("value")])
        used: tuple[str, ...] = ("value",)
    elif kind in _CATEGORIES:
        draft.add_values(f"{at}.values", name, listed(f"{at}.values", parameter.get("values")))
        used = ("values",)
    elif kind in _NORMAL:
        _read_normal(draft, at, name, kind, parameter)
        used = ("mu", "sigma", "q")
    else:
        _read_range(draft, at, name, kind, parameter)
        used = ("min", "max", "q") if kind.startswith("q_") else ("min", "max")
    reasons = dict.fromkeys((*used, "distribution"), "")
    reasons["probabilities"] = "all values are equally likely here; it is left out"
    draft.note_others(f"{at}.", parameter, reasons)


def _distribution(at: str, parameter: Mapping[str, Any]) -> str:
    known = (*_CONSTANTS, *_CATEGORIES, *_RANGES, *_NORMAL)
    kind = parameter.get("distribution")
    if kind is None:
        if "value" in parameter:
            return "constant"
        if "values" in parameter:
            return "categorical"
        ends = [parameter.get("min"), parameter.get("max")]
        if None in ends:
            raise Refused((at, "needs value, values, or min and max"))
        return "int_uniform" if all(isinstance(end, int) for end in ends) else "uniform"
    if not isinstance(kind, str) or kind not in known:
        raise Refused((f"{at}.distribution", f"must be one of {', '.join(known)}"))
    return kind


def _read_range(draft: Draft, at: str, name: str, kind: str, parameter: Mapping[str, Any]) -> None:
    low, high = (number(f"{at}.{end}", parameter.get(end)) for end in ("min", "max"))
    base = kind.removeprefix("q_").removeprefix("inv_")
    log = base.startswith("log_")
    if base == "log_uniform":  # its ends are exponents
        if kind.startswith("inv_"):
            low, high = -high, -low
        low, high = _exp(f"{at}.min", low), _exp(f"{at}.max", high)
    shown = f"{at}.distribution {kind}"
    if not kind.startswith("q_"):
        if kind == "int_uniform":
            low, high = (integral(f"{at}.{key}", end) for key, end in (("min", low), ("max", high)))
        draft.add_range(shown, name, low, high, whole=kind == "int_uniform", log=log)
        return
    step = _step(at, parameter)
    if not log:
        low, high = _multiple(low, step), _multiple(high, step)
    is_whole = step == int(step) and (not log or (step == 1 and low >= 1))
    if is_whole:
        low, high, step = round(low), round(high), int(step)
    draft.add_range(shown, name, low, high, whole=is_whole, log=log, step=step)


def _read_normal(draft: Draft, at: str, name: str, kind: str, parameter: Mapping[str, Any]) -> None:
    mu = number(f"{at}.mu", parameter.get("mu", 0))
    sigma = number(f"{at}.sigma", parameter.get("sigma", 1))
    if sigma <= 0:
        raise Refused((f"{at}.sigma", "must be above 0"))
    low, high = rounded(mu - SIGMAS * sigma), rounded(mu + SIGMAS * sigma)
    log = kind.endswith("log_normal")
    if log:
        low, high = _exp(f"{at}.mu", low), _exp(f"{at}.mu", high)
    shown = f"{at}.distribution {kind}"
    step = _step(at, parameter) if kind.startswith("q_") else None
    if step is not None and not log:
        low, high = _multiple(low, step), _multiple(high, step)
    law = "log-uniform" if log else "uniform"
    draft.note(shown, f"has no counterpart here; it is {law} within {SIGMAS} sigma of mu")
    draft.add_range(shown, name, low, high, log=log, step=step)


def _step(at: str, parameter: Mapping[str, Any]) -> float:
    step = number(f"{at}.q", parameter.get("q", 1))
    if step <= 0:
        raise Refused((f"{at}.q", "must be above 0"))
    return step


def _multiple(end: float, step: float) -> float:
    """An end of a range of multiples of a step, to which a sweep rounds all values."""
    steps = end / step
    return rounded(round(steps) * step) if abs(steps) <= MAX_STEPS else end


def _exp(at: str, exponent: float) -> float:
    try:
        return rounded(math.exp(exponent))
    except OverflowError as exc:
        raise Refused((at, "is an exponent of e here, and too large a one")) from exc
