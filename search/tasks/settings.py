"""What the settings of tasks are made of, which stand in a study's spec under `task`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from ridgeline.search.fields import MAX_SEED, Real, SpecPart, Whole

DatasetName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
]
"""A name, never a path: no separators and no dots."""

MAX_BATCH_SIZE = 65_536
MAX_WIDTH = 65_536
MAX_COEFFICIENT = 1e12


class TaskSettings(SpecPart):
    """What every task is told.

    A task narrows `name` to a Literal of its own.  One that trains on a data set calls the setting
    that names it `dataset`, by which the database counts.
    """

    name: str


class Split(SpecPart):
    """How a data set is divided; stratified by class, drawn from `seed` alone."""

    validation: Annotated[
        Real, Field(gt=0, lt=0.9, description="share of the training rows kept for validation")
    ] = 0.2
    test: Annotated[
        Real,
        Field(
            gt=0,
            lt=0.9,
            description="share of all rows kept for test; "
            "not used where the data set has a test part of its own",
        ),
    ] = 0.2
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0
