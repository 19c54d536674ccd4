"""Objectives that cost nothing to evaluate, to search thousands of times.

Two stand for the real thing: random forests fitted on what a network of the digits comes to after a
few epochs, over the space of the end-to-end benchmark.  The others are analytic, in 4 to 6
dimensions.  None has noise: a study's trials share their seeds too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor

from benchmarks.studies import DIGITS
from ridgeline.search.engine import LaneOptions, Lanes
from ridgeline.search.events import Over
from ridgeline.search.objective import Objective as Metric
from ridgeline.search.objective import Penalty
from ridgeline.search.samplers.random import draws
from ridgeline.search.space import Config, Space
from ridgeline.search.tasks.base import RunInput
from ridgeline.search.tasks.mlp import MlpDefaults, MlpSettings
from ridgeline.search.tasks.training import Preparer, open_device

FOREST_EPOCHS = 5
_NUM_TREES = 50
_ROWS_PER_STEP = 64
"""A step costs as much as this many rows more in its batch, so that small batches train longer."""

Point = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """Something to minimise.

    Attributes:
        value: of a configuration.
        seconds: how long a trial of a configuration lasts, in any unit.
    """

    name: str
    space: Space
    value: Callable[[Config], float]
    seconds: Callable[[Config], float]


def analytic_objectives() -> list[Objective]:
    """Hartmann's function in 6 dimensions, Rosenbrock's in 4, and a mixed quadratic in 5."""
    return [
        _on_cube("hartmann6", 6, _hartmann6),
        _on_cube("rosenbrock4", 4, _rosenbrock),
        Objective("mixed5", _MIXED_SPACE, _mixed, _seconds),
    ]


def forest_objectives(num_configs: int, seed: int) -> list[Objective]:
    """Validation error and loss of the digits, as forests fitted on random configurations."""
    space = Space.model_validate(DIGITS.space)
    drawn = draws(space, 0, seed)
    configs = [next(drawn).config for _ in range(num_configs)]
    errors, losses = train(configs)
    points = np.array([_point(space, config) for config in configs])
    return [
        _forest("digits_error", space, points, errors),
        _forest("digits_loss", space, points, np.log(losses)),
    ]


def train(configs: list[Config]) -> tuple[Point, Point]:
    """Validation errors and losses [n] after FOREST_EPOCHS epochs, by the engine."""
    device = open_device("cpu:0")
    lanes, preparer = Lanes(device, LaneOptions(compile=False)), Preparer(None, device)
    task = MlpSettings.model_validate(DIGITS.task)
    for number, config in enumerate(configs):
        full = {**MlpDefaults().model_dump(), "epochs": FOREST_EPOCHS, **config}
        run = RunInput(task, full, 1, Metric(), None, Penalty(penalize="all"), None)
        lanes.add(number, *preparer.prepare(run))
    errors, losses = np.full(len(configs), 1.0), np.full(len(configs), math.log(10))
    while not lanes.is_idle:
        for event in lanes.advance():
            if isinstance(event, Over) and event.outcome.state == "complete":
                key = event.key
                assert isinstance(key, int)
                errors[key] = 1 - event.outcome.metrics["validation_accuracy"]
                losses[key] = event.outcome.metrics["validation_loss"]
    return errors, losses


def _forest(name: str, space: Space, points: Point, values: Point) -> Objective:
    forest = RandomForestRegressor(_NUM_TREES, min_samples_leaf=2, random_state=0, n_jobs=1)
    forest.fit(points, values)
    trees = [tree.tree_ for tree in forest.estimators_]

    def value(config: Config) -> float:
        # `forest.predict` takes 3 ms for one point, most of it checks.
        point = _point(space, config)[None].astype(np.float32)
        return float(np.mean([tree.predict(point).item() for tree in trees]))

    return Objective(name, space, value, _seconds)


def _point(space: Space, config: Config) -> Point:
    """A configuration in the unit cube."""
    return np.array([parameter.encode(config[name]) for name, parameter in space.items()])


def _seconds(config: Config) -> float:
    return 1 + _ROWS_PER_STEP / float(config["batch_size"])


def _on_cube(name: str, num_dimensions: int, function: Callable[[Point], float]) -> Objective:
    """A function of the unit cube; trials last as long as if the first axis were a batch size."""
    unit: dict[str, Any] = {"type": "float", "low": 0.0, "high": 1.0}
    space = Space.model_validate({f"x{i}": unit for i in range(num_dimensions)})

    def seconds(config: Config) -> float:
        return 1 + _ROWS_PER_STEP / 2 ** (4 + 3 * float(config["x0"]))

    return Objective(name, space, lambda config: function(_point(space, config)), seconds)


_HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])


def _hartmann6(point: Point) -> float:
    """https://www.sfu.ca/~ssurjano/hart6.html"""
    inner = (_HARTMANN_A * (point - _HARTMANN_P) ** 2).sum(axis=1)
    return float(-(_HARTMANN_ALPHA * np.exp(-inner)).sum())


def _rosenbrock(point: Point) -> float:
    """https://www.sfu.ca/~ssurjano/rosen.html, on [-2, 2], its logarithm."""
    x = 4 * point - 2
    total = (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    return float(np.log1p(total))


_MIXED_SPACE = Space.model_validate(
    {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "batch_size": {"type": "values", "values": [16, 32, 64, 128]},
        "l2": {"type": "float", "low": 1e-7, "high": 1e-1, "log": True, "zero": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        "optimizer": {"type": "values", "values": ["sgd", "adam", "adamw"]},
    }
)


def _mixed(config: Config) -> float:
    """Larger batches want larger learning rates, and each optimizer has its own best one."""
    offset = {"sgd": -1.0, "adam": -2.5, "adamw": -2.7}[str(config["optimizer"])]
    best = offset + 0.5 * math.log10(float(config["batch_size"]) / 64)
    rate = math.log10(float(config["learning_rate"])) - best
    decay = math.log10(max(float(config["l2"]), 1e-7)) + 4
    penalty = 0.1 if config["optimizer"] == "sgd" else 0.0
    return rate**2 + 0.1 * decay**2 + 2 * (float(config["dropout"]) - 0.3) ** 2 + penalty
