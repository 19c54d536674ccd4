"""Studies that train for long enough to be hit, the same each time they are posted."""

from __future__ import annotations

from typing import Any


def study(name: str, *, trials: int = 24, epochs: int = 100, **changes: Any) -> dict[str, Any]:
    """A random search on the digits, trained by one program, so that values can be compared."""
    return {
        "name": name,
        "task": {"name": "mlp", "dataset": "digits", "hidden": [16]},
        "space": {
            "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
            "l2": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True, "zero": True},
            "dropout": {"type": "float", "low": 0, "high": 0.5},
        },
        "sampler": {"name": "random", "seed": 5},
        "budget": {"trials": trials, "epochs": epochs},
        "reproducible": True,
        **changes,
    }
