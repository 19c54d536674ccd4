"""Parameters in the paths of several routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import StringConvertor, register_url_convertor

from ridgeline.service.protocol import MAX_INT_32


class Name(StringConvertor):
    """A part of a path up to a colon, after which a verb stands.

    With it `GET …/trials/17:complete` is a wrong method, not a trial of that name.
    """

    regex = "[^/:]+"


register_url_convertor("name", Name())

StudyPath = Annotated[
    str,
    Path(
        alias="study",
        description="the study's name",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=128,
        examples=["digits-tpe"],
    ),
]
ComparisonPath = Annotated[
    str,
    Path(
        alias="comparison",
        description="the comparison's name",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=64,
        examples=["digits-regularisers"],
    ),
]
TrialPath = Annotated[
    int, Path(alias="number", description="the trial's number, from 0", ge=0, le=MAX_INT_32)
]
ID_PATTERN = r"^[0-9A-Za-z_-]+$"
