"""Experiments of Katib, v1beta1 (https://www.kubeflow.org/docs/components/katib/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline.search.fields import MAX_EPOCHS, MAX_SEED, SamplerName
from ridgeline.search.foreign.draft import (
    NO_TARGET,
    OWN_PROGRAM,
    Draft,
    Refused,
    integral,
    listed,
    mapping,
    metric_name,
    number,
    number_of_text,
    text,
    whole,
)
from ridgeline.search.pruners import MAX_ETA, MAX_STARTUP

_ALGORITHMS: dict[str, SamplerName] = {
    "grid": "grid",
    "random": "random",
    "tpe": "tpe",
    "multivariate-tpe": "tpe",
    "bayesianoptimization": "auto",
    "hyperband": "random",
    "sobol": "random",
    "cmaes": "auto",
    "pbt": "auto",
}
_WITHOUT_COUNTERPART = ("sobol", "cmaes", "pbt")
_FIELDS = {
    **dict.fromkeys(("objective", "algorithm", "earlyStopping", "parameters"), ""),
    **dict.fromkeys(("maxTrialCount", "parallelTrialCount"), ""),
    "trialTemplate": OWN_PROGRAM,
    "metricsCollectorSpec": "your own program reports its metrics; it is left out",
    "maxFailedTrialCount": "failed trials end no study; it is left out",
    "resumePolicy": "`ridgeline extend` goes on with a study; it is left out",
    "nasConfig": "architectures are not searched, only spec.parameters; it is left out",
}
_OBJECTIVE_FIELDS = {
    "type": "",
    "objectiveMetricName": "",
    "goal": NO_TARGET,
    "additionalMetricNames": "your program may report any metric; it is left out",
    "metricStrategies": "a trial has the value that your program ends it with; it is left out",
}


def is_katib(data: object) -> bool:
    """Whether this calls itself an experiment."""
    return isinstance(data, Mapping) and data.get("kind") == "Experiment"


def of_katib(data: Any, name: str) -> Draft:
    """The draft of an experiment; `name` is the study's where it has none.

    Raises:
        Refused: it is no experiment.
    """
    whole_file = mapping("", data)
    version = whole_file.get("apiVersion")
    if whole_file.get("kind") != "Experiment":
        raise Refused(("kind", "must be Experiment"))
    if version != "kubeflow.org/v1beta1":
        raise Refused(("apiVersion", "must be kubeflow.org/v1beta1"))
    draft = Draft(name)
    metadata = mapping("metadata", whole_file.get("metadata") or {})
    if "name" in metadata:
        draft.name_it("metadata.name", text("metadata.name", metadata["name"]))
    draft.note_others("metadata.", metadata, {"name": ""})
    spec = mapping("spec", whole_file.get("spec"))
    _read_objective(draft, mapping("spec.objective", spec.get("objective")))
    _read_algorithm(draft, mapping("spec.algorithm", spec.get("algorithm")))
    if spec.get("earlyStopping") is not None:
        _read_early_stopping(draft, mapping("spec.earlyStopping", spec["earlyStopping"]))
    if spec.get("maxTrialCount") is not None:
        draft.limit_trials("spec.maxTrialCount", _count("spec.maxTrialCount", spec))
    if spec.get("parallelTrialCount") is not None:
        draft.limit_parallel("spec.parallelTrialCount", _count("spec.parallelTrialCount", spec))
    for index, parameter in enumerate(listed("spec.parameters", spec.get("parameters"))):
        at = f"spec.parameters.{index}"
        _read_parameter(draft, at, mapping(at, parameter))
    draft.note_others("spec.", spec, _FIELDS)
    others = dict.fromkeys(("apiVersion", "kind", "metadata", "spec"), "")
    draft.note_others("", whole_file, others)
    return draft


def _count(at: str, spec: Mapping[str, Any]) -> int:
    return whole(at, number(at, spec[at.removeprefix("spec.")]), least=1)


def _read_objective(draft: Draft, objective: Mapping[str, Any]) -> None:
    field = "spec.objective.objectiveMetricName"
    draft.metric = metric_name(field, objective.get("objectiveMetricName"))
    match objective.get("type"):
        case "minimize":
            draft.direction = "minimize"
        case "maximize":
            draft.direction = "maximize"
        case _:
            raise Refused(("spec.objective.type", "must be minimize or maximize"))
    draft.note_others("spec.objective.", objective, _OBJECTIVE_FIELDS)


def _settings(at: str, part: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The settings of an algorithm by name, each as (the field of its value, the value)."""
    found = {}
    at = f"{at}.algorithmSettings"
    for index, one in enumerate(listed(at, part.get("algorithmSettings") or [])):
        setting = mapping(f"{at}.{index}", one)
        name = text(f"{at}.{index}.name", setting.get("name"))
        found[name] = (f"{at}.{index}.value", setting.get("value"))
    return found


def _setting(
    settings: dict[str, tuple[str, Any]], name: str, default: int, least: int, most: int
) -> int:
    """Take a whole number out of the settings."""
    if name not in settings:
        return default
    at, value = settings.pop(name)
    found = whole(at, number_of_text(at, value), least=least)
    if found > most:
        raise Refused((at, f"must be at most {most}"))
    return found


def _note_settings(draft: Draft, settings: Mapping[str, tuple[str, Any]]) -> None:
    for name, (at, _) in settings.items():
        draft.note(at, f"{name} has no counterpart here; it is left out")


def _read_algorithm(draft: Draft, algorithm: Mapping[str, Any]) -> None:
    at, field = "spec.algorithm", "spec.algorithm.algorithmName"
    name = algorithm.get("algorithmName")
    if name in ("enas", "darts"):
        raise Refused((field, f"{name} searches architectures, which has no counterpart here"))
    if not isinstance(name, str) or name not in _ALGORITHMS:
        raise Refused((field, f"must be one of {', '.join(_ALGORITHMS)}"))
    draft.sampler = _ALGORITHMS[name]
    if name in _WITHOUT_COUNTERPART:
        draft.note(field, f"{name} has no counterpart here; the sampler is {draft.sampler}")
    settings = _settings(at, algorithm)
    if name == "hyperband":
        eta = _setting(settings, "eta", 3, 2, MAX_ETA)
        draft.pruner = {"name": "halving", "eta": eta, "min_epochs": 1}
        draft.note(field, "hyperband is random with the pruner halving, by the epochs reported")
    if "random_state" in settings:
        draft.seed = _setting(settings, "random_state", 0, 0, MAX_SEED)
    _note_settings(draft, settings)
    draft.note_others(f"{at}.", algorithm, {"algorithmName": "", "algorithmSettings": ""})


def _read_early_stopping(draft: Draft, rule: Mapping[str, Any]) -> None:
    at = "spec.earlyStopping"
    if rule.get("algorithmName") != "medianstop":
        reason = "only medianstop has a counterpart; no trial is pruned for it"
        draft.note(f"{at}.algorithmName", reason)
        return
    if draft.pruner is not None:
        draft.note(at, "a study has one pruner, which is that of the algorithm; it is left out")
        return
    settings = _settings(at, rule)
    startup = _setting(settings, "min_trials_required", 3, 1, MAX_STARTUP)
    # The first report that may stop a trial is number start_step.
    start_step = _setting(settings, "start_step", 4, 1, MAX_EPOCHS)
    draft.pruner = {"name": "median", "startup": startup, "warmup_epochs": start_step - 1}
    _note_settings(draft, settings)
    draft.note_others(f"{at}.", rule, {"algorithmName": "", "algorithmSettings": ""})


def _read_parameter(draft: Draft, at: str, parameter: Mapping[str, Any]) -> None:
    name = text(f"{at}.name", parameter.get("name"))
    space_at = f"{at}.feasibleSpace"
    space = mapping(space_at, parameter.get("feasibleSpace"))
    match parameter.get("parameterType"):
        case "categorical":
            draft.add_values(
                f"{space_at}.list", name, listed(f"{space_at}.list", space.get("list"))
            )
            used: tuple[str, ...] = ("list",)
        case "discrete":
            values = listed(f"{space_at}.list", space.get("list"))
            numbers = [number_of_text(f"{space_at}.list.{i}", v) for i, v in enumerate(values)]
            draft.add_values(f"{space_at}.list", name, numbers)
            used = ("list",)
        case "int" | "double" as kind:
            _read_range(draft, space_at, name, kind, space)
            used = ("min", "max", "step", "distribution")
        case _:
            reason = "must be int, double, discrete or categorical"
            raise Refused((f"{at}.parameterType", reason))
    draft.note_others(f"{space_at}.", space, dict.fromkeys(used, ""))
    known = dict.fromkeys(("name", "parameterType", "feasibleSpace"), "")
    draft.note_others(f"{at}.", parameter, known)


def _read_range(draft: Draft, at: str, name: str, kind: str, space: Mapping[str, Any]) -> None:
    low, high = (number_of_text(f"{at}.{end}", space.get(end)) for end in ("min", "max"))
    step = None if space.get("step") is None else number_of_text(f"{at}.step", space["step"])
    if step is not None and step <= 0:
        raise Refused((f"{at}.step", "must be above 0"))
    is_whole = kind == "int"
    if is_whole:
        low, high = integral(f"{at}.min", low), integral(f"{at}.max", high)
        step = None if step is None else integral(f"{at}.step", step)
    law = space.get("distribution") or "uniform"
    if law not in ("uniform", "logUniform", "normal", "logNormal"):
        reason = "must be uniform, logUniform, normal or logNormal"
        raise Refused((f"{at}.distribution", reason))
    log = law in ("logUniform", "logNormal")
    if law in ("normal", "logNormal"):
        instead = "log-uniform" if log else "uniform"
        draft.note(f"{at}.distribution", f"{law} has no counterpart here; it is {instead}")
    draft.add_range(
        f"{at}.step" if step else at, name, low, high, whole=is_whole, log=log, step=step
    )
