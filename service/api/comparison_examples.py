"""Examples of comparisons, as `ridgeline.service.api.examples` has them of everything else."""

from __future__ import annotations

from typing import Any

from ridgeline.search import comparison
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.registry import BUILT_IN
from ridgeline.service.comparison_resources import (
    Arm,
    ArmResult,
    ArmsRequest,
    Comparison,
    ComparisonResult,
    ComparisonSummary,
    PairedDifference,
)
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import BestTrial, Interval, Study, TrialCounts

_DAY = 1_800_000_000.0

SPEC: dict[str, Any] = {
    "name": "digits-regularisers",
    "base": {
        "task": dict(next(one for one in BUILT_IN if one.trained_by == "workers").example),
        "space": {
            "learning_rate": {"type": "float", "low": 0.0005, "high": 0.02, "log": True},
            "batch_size": {"type": "values", "values": [16, 32, 64]},
        },
        "sampler": {"name": "random", "seed": 0},
        "budget": {"trials": 12, "epochs": 40},
    },
    "arms": {
        "none": {},
        "l2": {},
        "wide": {"task": {"hidden": [512]}},
    },
    "replicates": 5,
}
ARMS = ArmsRequest(arms={"dropout": {}}).model_dump(mode="json")

_PARSED = comparison.parse_comparison(SPEC)
_WINNERS: dict[str, Config] = {
    "none": {"learning_rate": 0.0071, "batch_size": 64},
    "l2": {"learning_rate": 0.0054, "batch_size": 32, "l2": 0.00031},
    "wide": {"learning_rate": 0.0012, "batch_size": 32},
}


def _study(spec: StudySpec, config: Config, begins_after: float) -> Study:
    return Study(
        name=spec.name,
        state=StudyState.COMPLETED,
        reason=None,
        stopping=False,
        spec=spec,
        num_trials=spec.num_trials,
        trials=TrialCounts(complete=spec.num_trials),
        mean_epoch=None,
        best=BestTrial(number=0, value=0.975, config=config),
        device_seconds=12.5,
        data_fingerprint="5f2c" * 16,
        owner="9f86d081884c7d65",
        revision=180,
        optuna_study_id=42,
        projection_error=None,
        deadline_at=None,
        created_at=_DAY + begins_after,
        started_at=_DAY + begins_after + 1,
        finished_at=_DAY + begins_after + 20,
    )


def _arm(name: str, search: StudySpec, config: Config) -> Arm:
    fresh = comparison.fresh_study(_PARSED, name, search, config)
    return Arm(
        name=name,
        state=StudyState.COMPLETED,
        reason=None,
        search=_study(search, config, 0),
        winner=BestTrial(number=0, value=0.975, config=config),
        fresh=_study(fresh, config, 30),
    )


_SUMMARY = ComparisonSummary(
    name=_PARSED.name,
    state=StudyState.COMPLETED,
    reason=None,
    spec=_PARSED,
    arm_states=dict.fromkeys(_PARSED.arms, StudyState.COMPLETED),
    device_seconds=75.0,
    owner="9f86d081884c7d65",
    created_at=_DAY,
    started_at=_DAY + 1,
    finished_at=_DAY + 50,
)
_COMPARISON = Comparison(
    **dict(_SUMMARY),
    arms=tuple(
        _arm(name, search, _WINNERS[name])
        for name, search in comparison.studies_of(_PARSED).items()
    ),
    result=ComparisonResult(
        metric="validation_accuracy",
        test_metric="test_accuracy",
        direction="maximize",
        arms=(
            ArmResult(
                arm="none",
                in_search=0.975,
                again=0.971,
                mean=0.967,
                interval=Interval(low=0.961, high=0.973),
                scores=(0.967, 0.961, 0.972, 0.969, 0.966),
                measures={"accuracy_gap": 0.021, "near_zero_share": 0.013, "inputs_kept": 64},
            ),
        ),
        differences=(
            PairedDifference(
                arm="none",
                other="l2",
                value=-0.0012,
                interval=Interval(low=-0.004, high=0.0016),
                p_value=0.62,
                num_pairs=5,
                verdict="open",
                sentence="none and l2 cannot be told apart: test_accuracy differs by -0.0012, 95 % "
                "interval -0.004 to +0.0016, 5 seeds; the interval holds 0.",
            ),
        ),
    ),
).model_dump(mode="json")
_RUNNING = {
    **_COMPARISON,
    "state": "RUNNING",
    "result": None,
    "finished_at": None,
}

ANSWERS: dict[str, Any] = {
    "create_comparison": _RUNNING,
    "list_comparisons": {
        "comparisons": [_SUMMARY.model_dump(mode="json")],
        "next_page_token": None,
        "total_size": 1,
    },
    "get_comparison": _COMPARISON,
    "delete_comparison": _COMPARISON,
    "extend_comparison": _RUNNING,
    "add_arms": _RUNNING,
    "pause_comparison": {**_RUNNING, "state": "PAUSED", "reason": "paused; resume it to go on"},
    "resume_comparison": _RUNNING,
    "cancel_comparison": {**_RUNNING, "state": "CANCELLED", "finished_at": _DAY + 60},
}
"""Answers by operation."""
