"""TPE on MNIST through a running service: how good is the best of twenty short trials?

Posts one study per seed and prints one JSON line each, the last line a summary.  The service's
worker needs a data root with a folder `mnist` of IDX files:

    ridgeline up --data-root DIR
    python benchmarks/mnist_tpe.py
"""

from __future__ import annotations

import argparse
import json
import secrets
from typing import Any

from ridgeline.service.client import Client

TARGET = 0.975


def spec(name: str, seed: int) -> dict[str, Any]:
    """Twenty trials of at most five epochs over four orders of magnitude and more."""
    return {
        "name": name,
        "task": {
            "name": "mlp",
            "dataset": "mnist",
            "hidden": [512],
            "split": {"validation": 0.1},
        },
        "space": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
            "batch_size": {"type": "values", "values": [16, 32, 64, 128, 256, 512]},
            "l2": {"type": "float", "low": 1e-7, "high": 1e-1, "log": True, "zero": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        },
        "sampler": {"name": "tpe", "seed": seed},
        "budget": {"trials": 20, "epochs": 5},
        "early_stopping": {"patience": 2},
        "reproducible": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    suffix = secrets.token_hex(3)
    num_reached = 0
    with Client(arguments.url) as client:
        for seed in range(arguments.seeds):
            study = client.create_study(spec(f"mnist-tpe-{seed}-{suffix}", seed))
            for _ in client.events(study.name, after=0):
                pass
            study = client.study(study.name)
            best = client.best(study.name)
            reached = best.value is not None and best.value >= TARGET
            num_reached += reached
            row = {
                "seed": seed,
                "state": study.state,
                "trials": study.trials.model_dump(),
                "validation_accuracy": best.value,
                "test_accuracy": best.runs[0].metrics["test_accuracy"],
                "number": best.number,
                "config": best.config,
                "program": best.runs[0].program,
                "device_seconds": round(study.device_seconds, 1),
                "reached": reached,
            }
            print(json.dumps(row), flush=True)
    print(json.dumps({"seeds": arguments.seeds, "target": TARGET, "reached": num_reached}))


if __name__ == "__main__":
    main()
