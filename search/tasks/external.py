"""Studies whose trials are trained by people's own programs."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import StringConstraints

from ridgeline.search.tasks.base import Problem, SearchSpec, Task
from ridgeline.search.tasks.settings import TaskSettings


class ExternalSettings(TaskSettings):
    """Trained by your own program, through trials:suggest, :report and :complete."""

    name: Literal["external"]
    description: Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$")] = ""


class ExternalTask(Task[ExternalSettings]):
    name = "external"
    settings = ExternalSettings
    trained_by = "program"
    parameters = None
    metrics = None
    example = MappingProxyType(
        {"name": "external", "description": "trained by train.py on our cluster"}
    )

    def problems(self, settings: ExternalSettings, spec: SearchSpec) -> Iterator[Problem]:
        if spec.replicates != 1:
            yield "replicates", "an external study has one run a trial; repeat inside your program"
        if spec.early_stopping is not None:
            yield "early_stopping", "your own program decides when an external trial ends"
        for field in ("metric", "direction"):
            if field not in spec.objective.model_fields_set:
                yield f"objective.{field}", "is missing: an external study has no default"
        if spec.budget.run_seconds is not None:
            yield "budget.run_seconds", "your own program decides when an external trial ends"
