"""Field types of specs: strict, since `true` is no number and "5" is a text.

Numbers are finite, and whole ones stay where JSON readers, float64 columns and SQL keep them exact.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

MAX_INT = 2**53
MAX_EPOCHS = 100_000
MAX_SEED = 2**53


def fits(kind: Any, value: object) -> bool:
    """Whether a field of this kind, such as `ParameterName`, would take the value."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


class SpecPart(BaseModel):
    """A part of a spec: never changed, and without a field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Direction = Literal["maximize", "minimize"]

SamplerName = Literal["auto", "gp", "tpe", "random", "grid"]
"""Of a metric: which values are the better ones."""

Verdict = Literal["better", "worse", "open"]
"""What data support about one thing against another; open: neither."""

Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
ParameterName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=100)
]
MetricName = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""Any printable text, such as val/loss: programs of other people have named their metrics."""

Text = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
