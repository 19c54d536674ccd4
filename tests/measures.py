"""What may have been seen of the weights of a run, for tests."""

from __future__ import annotations

from ridgeline.search.measures import Measures

RELU = Measures.model_validate(
    {
        "generalisation_gap": {"loss": 0.5, "accuracy": 0.25},
        "inputs": {"num_inputs": 8, "num_kept": 3},
        "layers": {
            "layers.0.weight": {
                "num_weights": 32,
                "weight_norm": 2.0,
                "zero_share": 0.5,
                "near_zero_share": 0.75,
            },
            "layers.1.weight": {
                "num_weights": 96,
                "weight_norm": 1.5,
                "zero_share": 0.0,
                "near_zero_share": 0.25,
            },
        },
        "units": {"layers.0": {"num_units": 4, "num_dead": 1, "linear_share": None}},
        "weight_histogram": {"num_zero": 16, "counts": [8, 0, 24, *[0] * 15, 40, 40, *[0] * 6]},
    }
)
TANH = Measures.model_validate(
    {
        **RELU.model_dump(),
        "inputs": None,
        "units": {
            "layers.0": {"num_units": 4, "num_dead": None, "linear_share": 0.5},
            "layers.1": {"num_units": 12, "num_dead": None, "linear_share": 0.25},
        },
    }
)
