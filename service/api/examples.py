"""Examples that the OpenAPI document shows; made of the models, so they cannot go stale."""

from __future__ import annotations

from typing import Any

from ridgeline.search.measures import (
    InputMeasures,
    LayerMeasures,
    Measures,
    UnitMeasures,
    WeightHistogram,
)
from ridgeline.search.spec import parse_spec
from ridgeline.search.tasks.kinds import Classes, Image
from ridgeline.search.tasks.registry import BUILT_IN
from ridgeline.service.api import comparison_examples, external_examples
from ridgeline.service.lifecycle import FailReason, RunState, StudyState, TrialState
from ridgeline.service.protocol import (
    CheckpointInfo,
    DatasetInfo,
    DeviceInfo,
    RunEnded,
    RunHeld,
    RunKey,
    RunOrder,
    RunReport,
    StudyRules,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from ridgeline.service.resources import (
    BestTrial,
    Dataset,
    EnqueueRequest,
    EpochMetrics,
    ExtendRequest,
    LeftOut,
    ParameterInfo,
    RetryRequest,
    Run,
    Study,
    TaskInfo,
    TokenInfo,
    Trial,
    TrialCounts,
    Worker,
)

_DAY = 1_800_000_000.0
_FINGERPRINT = "5f2c" * 16
_PROGRAM = "eager/1 torch-2.13.0 cpu width-8"
_CONFIG = {"learning_rate": 0.0071, "batch_size": 64, "l2": 0.0, "dropout": 0.25}
_METRICS = {"validation_accuracy": 0.975, "validation_loss": 0.093}
_MEASURES = Measures(
    generalisation_gap={"loss": 0.071, "accuracy": 0.021},
    inputs=InputMeasures(num_inputs=64, num_kept=61),
    layers={
        "layers.0.weight": LayerMeasures(
            num_weights=4_096, weight_norm=9.21, zero_share=0.0, near_zero_share=0.0059
        ),
        "layers.1.weight": LayerMeasures(
            num_weights=640, weight_norm=6.48, zero_share=0.0, near_zero_share=0.0047
        ),
    },
    units={"layers.0": UnitMeasures(num_units=64, num_dead=2, linear_share=None)},
    weight_histogram=WeightHistogram(
        num_zero=0,
        counts=(
            *(0, 0, 0, 0, 0, 0, 1, 2, 4, 7),
            *(14, 29, 58, 117, 233, 467, 890, 1_402, 1_183, 329),
            *(0, 0, 0, 0, 0, 0),
        ),
    ),
)

_TRAINED, _EXTERNAL = (
    next(task for task in BUILT_IN if task.trained_by == by) for by in ("workers", "program")
)
_SHORT = {
    name: value
    for name, value in _TRAINED.example.items()
    if _TRAINED.settings.model_fields[name].is_required()
}

TPE_SPEC: dict[str, Any] = {
    "name": "digits-tpe",
    "task": dict(_TRAINED.example),
    "space": {
        "learning_rate": {"type": "float", "low": 0.0001, "high": 0.1, "log": True},
        "batch_size": {"type": "values", "values": [32, 64, 128]},
        "l2": {"type": "float", "low": 1e-6, "high": 0.01, "log": True, "zero": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.6},
    },
    "sampler": {"name": "tpe", "seed": 1},
    "budget": {"trials": 100, "epochs": 20},
    "early_stopping": {"patience": 5},
    "pruner": {"name": "halving", "eta": 3},
}
GRID_SPEC: dict[str, Any] = {
    "name": "digits-grid",
    "task": _SHORT,
    "space": {
        "learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True, "points": 3},
        "l2": {"type": "values", "values": [0.0, 0.0001, 0.001]},
    },
    "sampler": {"name": "grid"},
    "replicates": 3,
}
EXTERNAL_SPEC: dict[str, Any] = {
    "name": "my-program",
    "task": dict(_EXTERNAL.example),
    "space": {"depth": {"type": "int", "low": 2, "high": 12}},
    "sampler": {"name": "random", "seed": 7},
    "objective": {"metric": "error", "direction": "minimize"},
    "budget": {"trials": 50},
}

_STUDY = Study(
    name="digits-tpe",
    state=StudyState.RUNNING,
    reason=None,
    stopping=False,
    spec=parse_spec(TPE_SPEC),
    num_trials=100,
    trials=TrialCounts(waiting=0, running=8, complete=31, pruned=0, fail=1),
    mean_epoch=11.5,
    best=BestTrial(number=17, value=0.975, config=_CONFIG),
    device_seconds=42.5,
    data_fingerprint=_FINGERPRINT,
    owner="9f86d081884c7d65",
    revision=1312,
    optuna_study_id=42,
    projection_error=None,
    deadline_at=None,
    created_at=_DAY,
    started_at=_DAY + 1,
    finished_at=None,
).model_dump(mode="json")

_TRIAL = Trial(
    study="digits-tpe",
    number=17,
    state=TrialState.COMPLETE,
    reason=None,
    config=_CONFIG,
    value=0.975,
    origin="sampler",
    grid_cell=None,
    sampler="tpe/3",
    sampler_seed=4_172_390_114,
    retry_of=None,
    seen_revision=612,
    revision=905,
    runs=(
        Run(
            replicate=0,
            seed=2_750_121_003,
            state=RunState.COMPLETE,
            reason=None,
            error=None,
            log_tail=None,
            attempt=1,
            charges=0,
            worker="b1946ac92492d234",
            device="cpu:0",
            client_id=None,
            program=_PROGRAM,
            data_fingerprint=_FINGERPRINT,
            value=0.975,
            kept_epoch=14,
            metrics={**_METRICS, "test_accuracy": 0.969},
            measures=_MEASURES,
            pruned_by_version=None,
            device_seconds=1.07,
            started_at=_DAY + 20,
            finished_at=_DAY + 22,
        ),
    ),
    created_at=_DAY + 20,
    started_at=_DAY + 20,
    finished_at=_DAY + 22,
).model_dump(mode="json")
_TRIAL_WITH_HISTORY = {
    **_TRIAL,
    "epochs": [EpochMetrics(replicate=0, epoch=1, metrics=_METRICS).model_dump(mode="json")],
}

ENQUEUE = EnqueueRequest(configs=(_CONFIG,)).model_dump(mode="json")
EXTEND = ExtendRequest(trials=10).model_dump(mode="json", exclude_none=True)
EXTEND_SPACE = {"trials": 10, "space": {"batch_size": {"values": [16, 32, 64, 128, 256]}}}
EXTEND_TIME = ExtendRequest(seconds=600).model_dump(mode="json", exclude_none=True)
RETRY = RetryRequest(reasons=(FailReason.CRASHED,)).model_dump(mode="json")
CLONE = {"name": "digits-tpe-2", "budget": {"trials": 100}, "sampler": {"seed": 2}}
_DIGITS = DatasetInfo(
    name="digits",
    fingerprint=_FINGERPRINT,
    num_rows=1_797,
    num_features=64,
    num_classes=10,
    has_test_part=False,
    smallest_class=174,
    features=Image(channels=1, height=8, width=8),
    targets=Classes(10),
    rarest_class="8",
    files="other",
)
_DATASET = Dataset(**dict(_DIGITS), num_workers=1).model_dump(mode="json")
_LEFT_OUT = LeftOut(
    name="sms", reason="data set sms: the train part has no file of labels"
).model_dump(mode="json")
_DEVICE = DeviceInfo(name="cpu:0", kind="cpu", description="8 cores", num_slots=32)
REGISTRATION = WorkerRegistration(
    name="workstation", devices=(_DEVICE,), tasks=(_TRAINED.name,), datasets=(_DIGITS,)
).model_dump(mode="json")
_REGISTERED = WorkerRegistered(
    id="b1946ac92492d234", lease_seconds=30, sync_interval_seconds=0.5
).model_dump(mode="json")
_WORKER = Worker(
    id="b1946ac92492d234",
    name="workstation",
    state="LIVE",
    devices=(_DEVICE,),
    tasks=(_TRAINED.name,),
    datasets=(_DIGITS,),
    num_runs=8,
    runs_by_device={"cpu:0": 8},
    idle_slots={"cpu:0": 0},
    restarts={"cpu:0": 0},
    registered_at=_DAY,
    seen_at=_DAY + 60,
).model_dump(mode="json")
SYNC = SyncRequest(
    sync_seq=2,
    held=(RunHeld(run=18, attempt=1, device="cpu:0", program=_PROGRAM),),
    reports=(RunReport(run=17, attempt=1, epoch=20, metrics=_METRICS),),
    ended=(
        RunEnded(
            run=17,
            attempt=1,
            outcome="complete",
            value=0.975,
            kept_epoch=14,
            metrics=_METRICS,
            measures=_MEASURES,
            device_seconds=1.07,
        ),
    ),
    free_slots={"cpu:0": 1},
    idle_slots={"cpu:0": 0},
    rules={"digits-tpe": 871},
).model_dump(mode="json", exclude_defaults=True)
_CHECKPOINT = CheckpointInfo(
    epoch=8, attempt=1, program=_PROGRAM, num_bytes=81_920, sha256=_FINGERPRINT
)
_SYNCED = SyncResponse(
    start=(
        RunOrder(
            run=19,
            attempt=1,
            study="digits-tpe",
            trial=19,
            replicate=0,
            device="cpu:0",
            seed=2_750_121_003,
            task=_SHORT,
            config={**_CONFIG, "epochs": 20},
            objective={"metric": "validation_accuracy", "direction": "maximize"},
            early_stopping={"patience": 5, "min_delta": 0.0},
            penalty={"penalize": "weights"},
            data_fingerprint=_FINGERPRINT,
            reproducible=False,
        ),
    ),
    stop=(RunKey(run=12, attempt=2),),
    refused=(),
    rules=(
        StudyRules(
            study="digits-tpe",
            version=905,
            metric="validation_accuracy",
            direction="maximize",
            thresholds={1: 0.71, 3: 0.88, 9: 0.94},
        ),
    ),
).model_dump(mode="json")

TOKEN_REQUEST = {"name": "laptop", "scopes": ["write"], "note": "for the notebooks"}
_TOKEN = TokenInfo(
    id="9f86d081884c7d65",
    name="laptop",
    scopes=("write",),
    note="for the notebooks",
    created_at=_DAY,
    revoked_at=None,
).model_dump(mode="json")

_TASK = TaskInfo(
    name=_TRAINED.name,
    description="A fully connected network.",
    parameters=(
        ParameterInfo(
            name="learning_rate",
            kind="float",
            description="step size of the optimizer, the highest of the schedule",
            low=0.0,
            high=1e12,
            choices=(),
            listed=False,
            default=0.001,
        ),
    ),
    metrics={"validation_accuracy": "maximize", "validation_loss": "minimize"},
    settings_schema={"title": _TRAINED.settings.__name__, "type": "object"},
    num_workers=1,
).model_dump(mode="json")

_EVENTS = """\
id: 905
event: trial
data: {"number": 17, "state": "COMPLETE", "reason": null, "config": {"l2": 0.0}, "value": 0.975}

id: 1312
event: end
data: {}
"""
_CSV = """\
number,trial_state,trial_reason,trial_value,params_depth,replicate,seed,run_state,run_reason,…
0,COMPLETE,,0.17,5,0,2750121003,COMPLETE,,…
"""

_METRICS_TEXT = """\
# HELP ridgeline_studies Studies by state
# TYPE ridgeline_studies gauge
ridgeline_studies{state="RUNNING"} 2.0
"""

_REPORT = '<!doctype html>\n<html lang="en">…</html>\n'

_EXPLANATION = {
    "study": "digits-tpe",
    "number": 17,
    "sampler": "auto/1",
    "config": _CONFIG,
    "value": 0.975,
    "chosen_by": "model",
    "given": None,
    "is_derived_again": True,
    "num_ended": 12,
    "num_in_flight": 5,
    "num_candidates": 1_024,
    "expected_value": 0.9741,
    "expected_low": 0.9633,
    "expected_high": 0.9849,
    "density_ratio": None,
    "nearest": [{"number": 9, "distance": 0.11, "value": 0.9721, "config": _CONFIG}],
}

ANSWERS: dict[str, Any] = {
    "create_study": _STUDY,
    "delete_study": {**_STUDY, "state": "CANCELLED", "finished_at": _DAY + 60},
    "clone_study": {**_STUDY, "name": "digits-tpe-2"},
    "extend_study": _STUDY,
    "retry_study": _STUDY,
    "list_studies": {"studies": [_STUDY], "next_page_token": "NDI=", "total_size": 117},
    "get_study": _STUDY,
    "get_best_trial": _TRIAL,
    "export_study": _CSV,
    "get_study_report": _REPORT,
    "get_comparison_report": _REPORT,
    "stream_events": _EVENTS,
    "pause_study": {**_STUDY, "state": "PAUSED", "reason": "paused; resume it to go on"},
    "resume_study": _STUDY,
    "stop_study": {**_STUDY, "stopping": True},
    "cancel_study": {**_STUDY, "state": "CANCELLED", "finished_at": _DAY + 60},
    "archive_study": {**_STUDY, "state": "COMPLETED", "archived": True, "finished_at": _DAY + 60},
    "unarchive_study": {**_STUDY, "state": "COMPLETED", "finished_at": _DAY + 60},
    **comparison_examples.ANSWERS,
    "list_trials": {"trials": [_TRIAL], "next_page_token": None},
    "get_trial": _TRIAL_WITH_HISTORY,
    "explain_trial": _EXPLANATION,
    "enqueue_trials": {"trials": [_TRIAL], "next_page_token": None},
    "suggest_trials": external_examples.SUGGESTED,
    "report_trials": external_examples.OUTCOMES,
    "report_trial": {**_TRIAL, "should_prune": False},
    "complete_trial": _TRIAL,
    "list_tasks": {"tasks": [_TASK], "next_page_token": None},
    "list_datasets": {"datasets": [_DATASET], "left_out": [_LEFT_OUT], "next_page_token": None},
    "list_workers": {"workers": [_WORKER], "next_page_token": None},
    "register_worker": _REGISTERED,
    "sync_worker": _SYNCED,
    "put_checkpoint": _CHECKPOINT.model_dump(mode="json"),
    "get_checkpoint": "the bytes of the file",
    "get_caller": {"token_id": "9f86d081884c7d65", "scopes": ["read", "write"]},
    "list_tokens": {"tokens": [_TOKEN], "next_page_token": None},
    "create_token": {**_TOKEN, "token": "rl_9f86d081884c7d65_…"},
    "revoke_token": {**_TOKEN, "revoked_at": _DAY + 60},
    "healthz": {"status": "ok"},
    "get_metrics": _METRICS_TEXT,
    "readyz": {
        "status": "degraded",
        "checks": [
            {"name": "database", "status": "ok", "detail": ""},
            {"name": "dashboard", "status": "degraded", "detail": "its process does not answer"},
        ],
    },
}
"""Answers by operation."""
