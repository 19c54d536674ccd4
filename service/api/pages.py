"""Lists in pages: `page_size`, an opaque `page_token`, and `next_page_token`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from ridgeline.search.fields import MAX_INT
from ridgeline.service.comparison_resources import ComparisonSummary
from ridgeline.service.errors import InvalidInput
from ridgeline.service.protocol import MAX_INT_32
from ridgeline.service.resources import Dataset, LeftOut, Study, TaskInfo, TokenInfo, Trial, Worker

PageSize = Annotated[int, Query(ge=1, le=1_000, description="how many at most")]


PageToken = Annotated[
    str | None,
    Query(max_length=100, description="`next_page_token` of the page before; none: the first"),
]


def _cursor_up_to(largest: int) -> Callable[[str | None], int | None]:
    """Reads the number in a page token, of a column that holds none above `largest`."""

    def cursor(page_token: PageToken = None) -> int | None:
        if page_token is None:
            return None
        try:
            text = base64.b64decode(page_token, altchars=b"-_", validate=True).decode("ascii")
            number = int(text)
        except ValueError:
            number = -1
        if not 0 <= number <= largest:
            raise InvalidInput([("page_token", "is not the next_page_token of another page")])
        return number

    return cursor


StudyCursor = Annotated[int | None, Depends(_cursor_up_to(MAX_INT))]
"""The id of the last study of the page before."""

ComparisonCursor = Annotated[int | None, Depends(_cursor_up_to(MAX_INT))]
"""The id of the last comparison of the page before."""

TrialCursor = Annotated[int | None, Depends(_cursor_up_to(MAX_INT_32))]
"""The number of the last trial of the page before."""


def next_page_token(cursor: int | None) -> str | None:
    """What stands for the next page; None after the last."""
    return None if cursor is None else base64.urlsafe_b64encode(b"%d" % cursor).decode()


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True)

    next_page_token: str | None = Field(None, description="null: this is the last page")


class StudyPage(_Page):
    studies: list[Study]
    total_size: int = Field(description="how many there are on all pages")


class ComparisonPage(_Page):
    comparisons: list[ComparisonSummary]
    total_size: int = Field(description="how many there are on all pages")


class TrialPage(_Page):
    trials: list[Trial]


class TaskPage(_Page):
    tasks: list[TaskInfo]


class DatasetPage(_Page):
    datasets: list[Dataset]
    left_out: list[LeftOut] = Field(description="folders of the api's data root that are none")


class WorkerPage(_Page):
    workers: list[Worker]


class TokenPage(_Page):
    tokens: list[TokenInfo]
