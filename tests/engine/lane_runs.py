"""Runs in lanes, for tests: how they end, and how they would end alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ridgeline.search.engine import (
    DeviceData,
    Lanes,
    Mlp,
    Outcome,
    Over,
    RunConfig,
    TrainingRun,
)
from ridgeline.search.engine.native import Kernels

WIDTH = 3


def drain(lanes: Lanes) -> list[Any]:
    events: list[Any] = []
    while not lanes.is_idle:
        events += lanes.advance()
    return events


def outcomes(events: list[Any]) -> dict[Any, Outcome]:
    return {event.key: event.outcome for event in events if isinstance(event, Over)}


def alone(
    run: RunConfig,
    shape: Mlp,
    data: DeviceData,
    width: int = WIDTH,
    kernels: Kernels | None = None,
) -> Outcome:
    """What a run comes to when the engine is called directly."""
    training = TrainingRun(run, shape, data, width=width, kernels=kernels)
    list(training.epochs())
    return training.outcome()


def assert_same(one: Outcome, other: Outcome) -> None:
    assert replace(one, weights={}) == replace(other, weights={})
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name
