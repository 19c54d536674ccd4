"""A person's module changes nothing for others, and does not end the process."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ridgeline.search.engine.models.module import ModuleModel
from tests.engine.models import unruly


@pytest.mark.parametrize("place", [unruly.ChangesAtBuild, unruly.ChangesInForward])
@pytest.mark.parametrize("change", unruly.CHANGES)
def test_what_a_module_sets_is_set_back(place: type[unruly.Perceptron], change: str) -> None:
    before = unruly.state()
    with suppress(Exception):  # it need not be good for anything
        _ = ModuleModel.of(place, (5,), 3, change=change).survey
    assert unruly.state() == before
    assert ModuleModel.of(unruly.Perceptron, (5,), 3).survey.obstacle is None


@pytest.mark.parametrize("at_build", [True, False])
@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "SystemExit: no licence"), ("cancelled", "CancelledError: by the loop")],
)
def test_what_would_end_the_process_is_an_error(how: str, at_build: bool, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        _ = ModuleModel.of(unruly.Exits, (5,), 3, how=how, at_build=at_build).survey


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        _ = ModuleModel.of(unruly.Exits, (5,), 3, how="interrupt", at_build=True).survey
