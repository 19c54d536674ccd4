"""Tasks that are a plain function, which a worker calls in a process of its own for each run.

The author of one writes

    def objective(params, report):
        ...
        return value

and an object of `FunctionTask` that an entry point names.  Everything that is slow to import is
imported inside the function: the api imports the module too.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, cast

from pydantic import create_model

from ridgeline.search.fields import Direction, MetricName, ParameterName, fits
from ridgeline.search.objective import Penalty
from ridgeline.search.ranges import Value
from ridgeline.search.space import Config
from ridgeline.search.tasks.base import Problem, SearchSpec, Task
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.settings import TaskSettings

MAX_SECONDS = 3_600.0
"""How long a function may take by default.  One that hangs would keep its place for ever."""

_SEEDS = 2**32
"""Numbers of seeds that numpy and scikit-learn take; those of runs have 53 bits."""


class Report(Protocol):
    """Tells the value of the metric after a step, and ends the run where it is to be pruned."""

    def __call__(self, step: int, value: float, /) -> None:
        """Tell one value.

        Args:
            step: a whole number from 1 on, higher than the one before.
            value: of the task's metric.

        Raises:
            Pruned: the study's pruner gives the run up.
            TypeError, ValueError: the step or the value is none; the run fails by that.
        """


class Pruned(BaseException):
    """The run ends here: `report` raises it, and a function may do so too.

    It is not an `Exception`, so that code which handles every error does not go on after it.
    """


class FunctionTask(Task[TaskSettings]):
    """A task whose runs call a function.

    Args:
        name: of the task, and of its entry point.
        function: is called with the parameters and a `Report`, and returns the value of the metric.
            The parameters are a dict with a value for each of `parameters`, and `seed`, a whole
            number below 2**32 from which all of the run's randomness is to follow.  It lacks a
            parameter without a default where the study's `when` says so.
        parameters: what a study may search, by name.  One called `epochs` is `budget.epochs` where
            a study does not search it.
        metric, direction: what the function returns, and which way is better.
        defaults: of parameters that a study may leave out.  It has to search all others.
        max_seconds: how long one call may take; None: as long as it takes.
        max_bytes: of memory that one call may use, with all processes that it starts; None takes an
            equal share of the worker's memory.

    Raises:
        ValueError: one of these cannot be used.
    """

    needs_process = True
    takes_gaps = True
    trained_by = "workers"
    parameters: Mapping[str, Domain]
    metrics: Mapping[str, Direction]

    def __init__(
        self,
        name: str,
        function: Callable[[dict[str, Any], Report], float],
        *,
        parameters: Mapping[str, Domain],
        metric: str,
        direction: Direction,
        defaults: Mapping[str, Value] | None = None,
        max_seconds: float | None = MAX_SECONDS,
        max_bytes: int | None = None,
    ) -> None:
        problems = list(_problems(function, parameters, metric, direction, defaults or {}))
        for limit, what in ((max_seconds, "max_seconds"), (max_bytes, "max_bytes")):
            is_number = isinstance(limit, int | float)
            if limit is not None and not (is_number and 0 < limit < math.inf):
                problems.append(f"{what} is {limit!r}; it must be above 0, or None")
        if problems:
            raise ValueError("; ".join(problems))
        self.name = name
        self.function = function
        self.parameters = MappingProxyType(dict(parameters))
        self.metrics = MappingProxyType({metric: direction})
        self.metric = metric
        self.max_seconds = max_seconds
        self.max_bytes = max_bytes
        self.example = MappingProxyType({"name": name})
        self._defaults = MappingProxyType(dict(defaults or {}))
        self.settings = create_model(
            f"{name}Settings",
            __base__=TaskSettings,
            __doc__=inspect.getdoc(function) or f"The function {function.__qualname__}.",
            name=(cast(Any, Literal[name]), ...),
        )

    def defaults(self, settings: TaskSettings | None) -> Mapping[str, Value]:
        return self._defaults

    @property
    def needed(self) -> tuple[str, ...]:
        """The parameters that a study has to search."""
        return tuple(name for name in self.parameters if name not in {*self._defaults, "epochs"})

    def problems(self, settings: TaskSettings, spec: SearchSpec) -> Iterator[Problem]:
        for name in self.needed:
            if name not in spec.space:
                yield f"space.{name}", f"is missing: the task {self.name} has no default for it"
        if spec.early_stopping is not None:
            yield "early_stopping", "a function decides itself when it ends"
        if spec.penalty != Penalty():
            yield "penalty", f"the task {self.name} is a function, which has no penalties"

    def params(self, config: Config, seed: int) -> dict[str, Any]:
        """What the function is called with in a run.

        Raises:
            ValueError: the configuration is not complete, or not one of this task's.
        """
        self.check_complete(config)
        return {**config, "seed": seed % _SEEDS}

    @property
    def program(self) -> str:
        """What values of the metric depend on besides the parameters, as far as it is known.

        That is the file of the function's module, and the version of Python.
        """
        path = getattr(sys.modules.get(self.function.__module__), "__file__", None)
        try:
            source = b"" if path is None else Path(path).read_bytes()
        except OSError:  # it has been removed since it was imported
            source = b""
        digest = hashlib.sha256(source).hexdigest()[:16]
        return f"function/source={digest}/python={sys.version_info[0]}.{sys.version_info[1]}"


def _problems(
    function: object,
    parameters: Mapping[str, Domain],
    metric: str,
    direction: str,
    defaults: Mapping[str, Value],
) -> Iterable[str]:
    if not inspect.isfunction(function):
        yield f"the function is a {type(function).__name__}, not one made by def"
    elif inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        yield f"{function.__qualname__} returns no number when it is called: it is async, or yields"
    elif not _takes_both(function):
        yield (
            f"{function.__qualname__}{inspect.signature(function)} cannot be called with two "
            "arguments, params and report"
        )
    if not isinstance(parameters, Mapping):
        yield f"the parameters are a {type(parameters).__name__}, not a dict of them by name"
        return
    if not parameters:
        yield "there are no parameters, so nothing to search"
    for name, domain in parameters.items():
        if not fits(ParameterName, name) or name == "seed":
            yield f"{name!r} cannot be the name of a parameter"
        elif not isinstance(domain, Domain):
            yield f"the parameter {name} is a {type(domain).__name__}, not a Domain"
        elif domain.kind == "choice" and not domain.choices:
            yield f"the parameter {name} is a choice that has no choices"
    if not fits(MetricName, metric):
        yield f"{metric!r} cannot be the name of a metric"
    if direction not in ("maximize", "minimize"):
        yield f'the direction is {direction!r}, not "maximize" or "minimize"'
    for name, value in defaults.items():
        if name == "epochs" or not isinstance(parameters.get(name), Domain):
            yield f"there is a default for {name}, which has none"
            continue
        if (reason := parameters[name].problem_of_default(value)) is not None:
            yield f"the default of {name}: {reason}"


def _takes_both(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind({}, None)
    except TypeError:
        return False
    return True
