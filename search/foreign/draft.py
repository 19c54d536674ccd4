"""What a description of another tool comes to, field by field, until it is a spec."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ridgeline.search.fields import (
    MAX_INT,
    Direction,
    MetricName,
    ParameterName,
    SamplerName,
    Text,
    fits,
)
from ridgeline.search.objective import MAX_PARALLEL, MAX_TRIALS
from ridgeline.search.problems import told, validation_problems
from ridgeline.search.ranges import Value
from ridgeline.search.space import Config, Space
from ridgeline.search.tasks.registry import BUILT_IN

DEFAULT_TRIALS = 100
GRID_POINTS = 10
MAX_NAME = 128

OWN_PROGRAM = "your own program trains, and asks for trials with client.external; it is left out"
NO_TARGET = "no study ends at a value; end it with `ridgeline stop`"

_SPACES = TypeAdapter(dict[str, Space])


class Refused(ValueError):
    """No such description; `problems` are (field path, reason) pairs, by its author's fields."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__(told(problems))
        self.problems = problems


@dataclass
class Draft:
    """A spec in the making.

    Attributes:
        notes: (field of the other tool, what becomes of it) for what has no counterpart here.
        best: configurations of finished trials, the best one first.
    """

    name: str
    description: str = ""
    sampler: SamplerName = "auto"
    seed: int | None = None
    metric: str | None = None
    direction: Direction = "minimize"
    trials: int | None = None
    max_parallel: int | None = None
    pruner: dict[str, Any] | None = None
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    best: list[Config] = field(default_factory=list)

    def note(self, at: str, what: str) -> None:
        self.notes.append((at, what))

    def note_others(self, at: str, data: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
        """Note each field that is there, with its reason, or that it is not known here.

        A reason of "" is for fields that are read.
        """
        for key in data:
            reason = reasons.get(key, "has no counterpart here; it is left out")
            if reason:
                self.note(f"{at}{key}", reason)

    def name_it(self, at: str, name: str) -> None:
        fit = study_name(name, self.name)
        if fit != name:
            self.note(at, f"names of studies have letters, digits, '.', '_', '-'; it is {fit} here")
        self.name = fit

    def limit_trials(self, at: str, number: int) -> None:
        if number > MAX_TRIALS:
            self.note(at, f"a study has {MAX_TRIALS} trials at most; so many are written")
        self.trials = min(number, MAX_TRIALS)

    def limit_parallel(self, at: str, number: int) -> None:
        if number > MAX_PARALLEL:
            self.note(at, f"at most {MAX_PARALLEL} trials are in flight; so many are written")
        self.max_parallel = min(number, MAX_PARALLEL)

    def add_values(self, at: str, name: str, values: Iterable[Any]) -> str:
        """Add a list of values, and give the parameter's name here."""
        taken: list[Value] = []
        for index, value in enumerate(values):
            mine = self._scalar(f"{at}.{index}", value)
            if mine in taken:
                self.note(f"{at}.{index}", f"{_shown(value)} stands there before; it is left out")
            else:
                taken.append(mine)
        return self._add(at, name, {"type": "values", "values": taken})

    def add_range(
        self,
        at: str,
        name: str,
        low: float,
        high: float,
        *,
        whole: bool = False,
        log: bool = False,
        step: float | None = None,
    ) -> str:
        """Add a range of numbers, and give the parameter's name here."""
        if low == high or (step is not None and low < high and step > high - low):
            return self._add(at, name, {"type": "values", "values": [low]})
        parameter: dict[str, Any] = {"type": "int" if whole else "float", "low": low, "high": high}
        if log:
            parameter["log"] = True
            if step is not None and not (whole and step == 1):
                self.note(at, "has no step on a log range here; the step is left out")
            step = None
        if step is not None and not (whole and step == 1):
            with_step = {**parameter, "step": step}
            if _problem(with_step) is None:
                parameter = with_step
            elif _problem(parameter) is None:
                self.note(at, f"{_problem(with_step)}; the step is left out")
        return self._add(at, name, parameter)

    def spec(self) -> dict[str, Any]:
        """The spec as plain data, with the task `external`."""
        if not self.space:
            raise Refused(("", "has no parameter to search"))
        self._fit_budget()
        if self.metric is None:
            self.metric = "loss"
            self.note("metric", "is missing; objective says to minimize loss: put it right")
        trained_by_programs = next(task for task in BUILT_IN if task.trained_by == "program")
        task = {"name": trained_by_programs.name, "description": self.description}
        sampler: dict[str, Any] = {"name": self.sampler}
        if self.seed is not None:
            sampler["seed"] = self.seed
        budget = {"trials": self.trials, "max_parallel": self.max_parallel}
        spec: dict[str, Any] = {
            "name": self.name,
            "task": {key: text for key, text in task.items() if text},
            "space": self.space,
            "sampler": sampler,
            "objective": {"metric": self.metric, "direction": self.direction},
            "budget": {key: number for key, number in budget.items() if number is not None},
            "pruner": self.pruner,
        }
        return {key: part for key, part in spec.items() if part not in (None, {})}

    def _fit_budget(self) -> None:
        if self.sampler != "grid":
            if self.trials is None:
                self.trials = DEFAULT_TRIALS
                self.note(
                    "budget.trials",
                    f"nothing says how many trials there are; {DEFAULT_TRIALS} are written",
                )
            return
        for name, parameter in self.space.items():
            if parameter["type"] == "float" and "step" not in parameter:
                parameter["points"] = GRID_POINTS
                self.note(
                    f"space.{name}.points",
                    f"a grid needs points on a range; {GRID_POINTS} are written",
                )
        num_cells = Space.model_validate(self.space).num_cells
        if num_cells is None:
            return
        if self.trials is not None and self.trials >= num_cells:
            self.trials = None  # a grid ends after its last cell
        elif self.trials is None and num_cells > MAX_TRIALS:
            self.trials = MAX_TRIALS
            self.note("budget.trials", f"the grid has more than {MAX_TRIALS} cells; so many stay")

    def _add(self, at: str, name: str, parameter: dict[str, Any]) -> str:
        if (reason := _problem(parameter)) is not None:
            raise Refused((at, reason))
        fit = name
        if not fits(ParameterName, name):
            fit = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("0123456789_.-")[:90] or "p"
        if fit in self.space:
            fit = next(f"{fit}_{n}" for n in range(2, 10_000) if f"{fit}_{n}" not in self.space)
        if fit != name:
            self.note(
                at, f"cannot have this name here; it is {fit}, which your program has to read"
            )
        self.space[fit] = parameter
        return fit

    def _scalar(self, at: str, value: Any) -> Value:
        if isinstance(value, bool) or (isinstance(value, str) and fits(Text, value)):
            return value
        if isinstance(value, int) and abs(value) <= MAX_INT:
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        text = plain(value)
        if text is not value and fits(Text, text):
            self.note(at, f"is no single value; it is the text {text}, for your program to read")
            return str(text)
        raise Refused(
            (at, "must be true, false, a finite number or a text of 1 to 200 printable characters")
        )


def _problem(parameter: Mapping[str, Any]) -> str | None:
    """What a space has against a parameter, in one line."""
    try:
        _SPACES.validate_python({"space": {"p": parameter}})
    except ValidationError as exc:
        found = list(validation_problems(exc))
        parts = [(field_.removeprefix("space.p").lstrip("."), reason) for field_, reason in found]
        return "; ".join(f"{part}: {reason}" if part else reason for part, reason in parts[:3])
    return None


def study_name(text: str, otherwise: str) -> str:
    """The name of a study that is most like a text; `otherwise` where nothing of it is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:MAX_NAME] or otherwise


def plain(value: Any) -> Any:
    """A value as one scalar: lists, mappings and null become texts."""
    is_compound = isinstance(value, list | tuple | dict) or value is None
    return _shown(value) if is_compound else value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def mapping(at: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused((at, "must be a mapping"))
    return value


def listed(at: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Refused((at, "must be a list"))
    return value


def text(at: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise Refused((at, "must be a text of printable characters"))
    return value


def metric_name(at: str, value: Any) -> str:
    if not fits(MetricName, value):
        raise Refused((at, "must be a text of 1 to 128 printable characters"))
    name: str = value
    return name


def number(at: str, value: Any) -> float:
    """A finite number, of type int where it is whole."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused((at, f"must be a number, not {_shown(value)[:60]}"))
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused((at, "must be a finite number"))
    if abs(value) > MAX_INT and isinstance(value, int):
        raise Refused((at, "is too large a number"))
    return value


def number_of_text(at: str, value: Any) -> float:
    """A number that may stand there as a text, as all do in Kubernetes."""
    if not isinstance(value, str):
        return number(at, value)
    try:
        return number(at, int(value) if re.fullmatch(r"[-+]?\d{1,19}", value) else float(value))
    except Refused:
        raise
    except ValueError as exc:
        raise Refused((at, f"must be a number, not {_shown(value)[:60]}")) from exc


def integral(at: str, value: float) -> int:
    """`value` as a whole number."""
    if value != int(value):
        raise Refused((at, "must be a whole number"))
    return int(value)


def whole(at: str, value: float, *, least: int) -> int:
    """`value` as a whole number, `least` or more."""
    if value != int(value) or value < least:
        raise Refused((at, f"must be a whole number, {least} or more"))
    return int(value)


def rounded(value: float) -> float:
    """Twelve digits of a number that was computed, which people read more easily."""
    return float(f"{value:.12g}")
