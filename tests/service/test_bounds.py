"""What one request may cost: pages hold so many bytes, and a sampler is asked for so long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ridgeline.service import enqueueing, paging, reporting, sampling, studies, trials
from ridgeline.service.errors import InvalidInput
from ridgeline.service.external_protocol import CompleteRequest, SuggestedTrial, SuggestRequest
from ridgeline.service.lifecycle import FailReason
from ridgeline.service.store.session import Store
from tests.service.factory import external, post, study_of

TPE: dict[str, Any] = {
    "space": {
        "x": {"type": "float", "low": 0, "high": 1},
        "n": {"type": "int", "low": 1, "high": 9},
    },
    "sampler": {"name": "tpe", "seed": 3},
    "budget": {"trials": 40, "max_parallel": 40},
}


def pages(look: Callable[..., tuple[list[Any], int | None]]) -> list[list[Any]]:
    """All pages of a list, each looked at by its own cursor."""
    found, cursor = [], None
    while True:
        page, cursor = look(cursor=cursor)
        found.append(page)
        if cursor is None:
            return found


@pytest.mark.parametrize("page_size", [1, 2, 5, 6, 1_000])
def test_a_page_of_studies_holds_so_many_bytes(
    page_size: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"v": {"type": "values", "values": [f"{i:0199}" for i in range(100)]}}
    for index in range(6):
        post(store, external(f"s{index}", **({"space": long} if index in (2, 3) else {})))
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 10_000)
    with store.reading() as tx:
        found = pages(lambda cursor: studies.list_page(tx, page_size=page_size, cursor=cursor))
    assert [one.name for page in found for one in page] == ["s5", "s4", "s3", "s2", "s1", "s0"]
    assert all(1 <= len(page) <= page_size for page in found)
    if page_size == 1_000:
        assert [len(page) for page in found] == [2, 1, 1, 2]


@pytest.mark.parametrize("page_size", [1, 3, 5, 1_000])
@pytest.mark.parametrize("at_once", [1, 2, 1_000])
def test_a_page_of_trials_holds_so_many_bytes(
    page_size: int, at_once: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(store, external(budget={"trials": 5}))
    for one in trials.suggest(store, "s", SuggestRequest(count=5)).trials:
        error = "x" * 9_000 if one.number in (1, 4) else None
        end = CompleteRequest(attempt=1, state="FAIL", reason=FailReason.DIVERGED, error=error)
        with store.transaction() as tx:
            reporting.complete(tx, "s", one.number, end, max_charges=1)
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 10_000)
    monkeypatch.setattr(trials, "_RUNS_AT_ONCE", at_once)
    with store.reading() as tx:
        found = pages(
            lambda cursor: trials.list_page(tx, "s", page_size=page_size, cursor=cursor, state=None)
        )
    assert [one.number for page in found for one in page] == [0, 1, 2, 3, 4]
    assert all(1 <= len(page) <= page_size for page in found)
    for page in found:
        num_bytes = sum(len(one.model_dump_json()) for one in page)
        assert len(page) == 1 or num_bytes <= 10_000
    if page_size == 1_000:
        assert [len(page) for page in found] == [1, 1, 2, 1]


def end_all(store: Store, study: str) -> None:
    """Ten trials that have ended, so that TPE looks at values."""
    for one in trials.suggest(store, study, SuggestRequest(count=10)).trials:
        with store.transaction() as tx:
            end = CompleteRequest(attempt=1, value=float(one.config["x"]))
            reporting.complete(tx, study, one.number, end, max_charges=1)


@pytest.mark.parametrize("reproducible", [False, True])
def test_a_slow_sampler_is_asked_again(
    reproducible: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s", "t"):
        post(store, external(name, **TPE, reproducible=reproducible))
        end_all(store, name)
    together = trials.suggest(store, "t", SuggestRequest(count=4))
    assert (len(together.trials), together.reason) == (4, None)
    monkeypatch.setattr(sampling, "PATIENCE_SECONDS", 0)
    one_by_one: list[SuggestedTrial] = []
    for _ in range(4):
        answer = trials.suggest(store, "s", SuggestRequest(count=4 - len(one_by_one)))
        assert len(answer.trials) == 1
        one_by_one += answer.trials
        is_last = len(one_by_one) == 4
        reason = None if is_last else "the sampler takes long; ask again for the others"
        assert answer.reason == reason
    assert [one.config for one in one_by_one] == [one.config for one in together.trials]


def test_configurations_that_take_the_sampler_too_long_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(store, external(**TPE))
    end_all(store, "s")
    monkeypatch.setattr(sampling, "PATIENCE_SECONDS", 0)
    with pytest.raises(InvalidInput, match="configs: the sampler has completed 1 of 2"):
        enqueueing.enqueue(store, "s", [{}, {}], remember=lambda _tx, _new: None)
    assert study_of(store).trials.waiting == 0
    enqueueing.enqueue(store, "s", [{}], remember=lambda _tx, _new: None)
    enqueueing.enqueue(store, "s", [{"x": 0.5, "n": 1}] * 2, remember=lambda _tx, _new: None)
    assert study_of(store).trials.waiting == 3


def test_a_space_lists_so_many_values(store: Store) -> None:
    most = {f"v{i}": {"type": "values", "values": list(range(1_000))} for i in range(10)}
    post(store, external("most", space=most))
    more = {**most, "v": {"type": "values", "values": [1]}}
    with pytest.raises(InvalidInput, match="space: lists 10001 values, and may list 10000 in all"):
        post(store, external("more", space=more))
