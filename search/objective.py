"""What the runs of a study are to reach, and how long and by which conventions they train.

Parts of the spec of a study that its task reads too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ridgeline.search.fields import MAX_EPOCHS, Direction, MetricName, Real, SpecPart, Whole

MAX_TRIALS = 100_000
MAX_PARALLEL = 10_000
MAX_SECONDS = 31_536_000


class Objective(SpecPart):
    """What makes one trial better than another; an external study has to say both."""

    metric: MetricName = "validation_accuracy"
    direction: Direction = "maximize"


class Budget(SpecPart):
    """When the search is over."""

    trials: Annotated[
        Whole | None,
        Field(ge=1, le=MAX_TRIALS, description="left out: every cell of the grid"),
    ] = None
    epochs: Annotated[
        Whole, Field(ge=1, le=MAX_EPOCHS, description="epochs a run trains at most")
    ] = 20
    seconds: Annotated[
        Real | None,
        Field(
            gt=0,
            le=MAX_SECONDS,
            description="no new trials once this much time has passed since the first one began",
        ),
    ] = None
    run_seconds: Annotated[
        Real | None,
        Field(
            gt=0,
            le=MAX_SECONDS,
            description="how long a run may train; one that takes longer though it trains alone "
            "fails as `timeout` in the end",
        ),
    ] = None
    max_parallel: Annotated[
        Whole | None,
        Field(
            ge=1,
            le=MAX_PARALLEL,
            description="trials in flight at once; left out: unlimited for grid and random, "
            "a tenth of the trials for samplers that learn from results",
        ),
    ] = None


class EarlyStopping(SpecPart):
    """Stop a run that no longer improves, and keep the weights of its best epoch."""

    patience: Annotated[Whole, Field(ge=1, le=MAX_EPOCHS)]
    min_delta: Annotated[Real, Field(ge=0, le=1e12)] = 0.0


class Penalty(SpecPart):
    """Conventions of the penalties l1 and l2."""

    penalize: Literal["weights", "all"] = "weights"
    lambda_convention: Literal["sum", "half_per_sample"] = "sum"
    l1_update: Literal["subgradient", "proximal"] = "subgradient"
