"""The studies that are measured end to end: the digits and MNIST, over the same space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

SAMPLERS = ("random", "auto", "tpe")


@dataclass(frozen=True)
class StudyWork:
    """One study: a perceptron with one hidden layer, and how long it is searched.

    Attributes:
        name: that of its data set too.
    """

    name: str
    hidden: int
    batch_sizes: tuple[int, ...]
    trials: int
    epochs: int

    @property
    def task(self) -> dict[str, Any]:
        return {"name": "mlp", "dataset": self.name, "hidden": [self.hidden]}

    @property
    def space(self) -> dict[str, Any]:
        return {
            "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True},
            "batch_size": {"type": "values", "values": list(self.batch_sizes)},
            "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.6},
        }

    def spec(self, name: str, sampler: str, seed: int) -> dict[str, Any]:
        """The study as it is posted.

        Penalties act on all parameters, as `weight_decay` of a script's optimizer does.
        """
        return {
            "name": name,
            "task": self.task,
            "space": self.space,
            "sampler": {"name": sampler, "seed": seed},
            "budget": {"trials": self.trials, "epochs": self.epochs},
            "penalty": {"penalize": "all"},
        }


DIGITS = StudyWork("digits", 64, (16, 32, 64, 128), trials=100, epochs=20)
MNIST = StudyWork("mnist", 128, (32, 64, 128, 256, 512), trials=20, epochs=5)

WORKS = {work.name: work for work in (DIGITS, MNIST)}


def quick(work: StudyWork) -> StudyWork:
    """Little of it, to see that a benchmark works."""
    return replace(work, batch_sizes=work.batch_sizes[::3], trials=6, epochs=2)
