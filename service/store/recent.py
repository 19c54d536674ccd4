"""What is kept in memory of the studies asked for last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

_T = TypeVar("_T")

_MAX_STUDIES = 64


class Recent(Generic[_T]):
    """One thing for each study, by its id; of many studies those written last.  Has no lock."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _T] = OrderedDict()

    def get(self, study_id: int) -> _T | None:
        return self._known.get(study_id)

    def put(self, study_id: int, thing: _T) -> None:
        """Keep it in place of what was kept of the study; of all it is the last to be dropped."""
        self._known[study_id] = thing
        self._known.move_to_end(study_id)
        while len(self._known) > _MAX_STUDIES:
            self._known.popitem(last=False)
