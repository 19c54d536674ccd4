"""The states and their transitions, as pure functions."""

from __future__ import annotations

import sys

import pytest

from ridgeline.service.lifecycle import (
    OPEN_STUDY,
    STUDY_VERBS,
    FailReason,
    RunEnd,
    RunState,
    StudyState,
    ToldTo,
    TrialState,
    arm_state,
    comparison_state,
    study_end,
    trial_end,
    verb_is_done,
)

COMPLETE = RunEnd(RunState.COMPLETE, None, 0.5)


@pytest.mark.parametrize("state", [RunState.WAITING, RunState.RUNNING])
def test_a_trial_with_an_open_run_goes_on(state: RunState) -> None:
    assert trial_end([COMPLETE, RunEnd(state, None, None)]) is None


def test_the_value_of_a_trial_is_the_mean_over_its_runs() -> None:
    end = trial_end([RunEnd(RunState.COMPLETE, None, value) for value in (0.25, 0.5, 0.75)])
    assert end == (TrialState.COMPLETE, None, 0.5)
    for value in (1.7e308, -1.7e308, sys.float_info.max):
        end = trial_end([RunEnd(RunState.COMPLETE, None, value)] * 3)
        assert end == (TrialState.COMPLETE, None, value)


def test_one_failed_run_fails_the_trial_for_the_first_reason() -> None:
    crashed = RunEnd(RunState.FAIL, FailReason.CRASHED, None)
    diverged = RunEnd(RunState.FAIL, FailReason.DIVERGED, None)
    assert trial_end([COMPLETE, diverged, crashed]) == (TrialState.FAIL, FailReason.DIVERGED, None)


def test_a_pruned_run_prunes_the_trial() -> None:
    assert trial_end([COMPLETE, RunEnd(RunState.PRUNED, None, None)]) == (
        TrialState.PRUNED,
        None,
        None,
    )
    assert trial_end([COMPLETE, RunEnd(RunState.PRUNED, None, 0.25)]) == (
        TrialState.PRUNED,
        None,
        0.375,
    )


@pytest.mark.parametrize(
    ("created", "still_open", "failed", "no_more", "state"),
    [
        (3, 1, 0, False, None),
        (2, 0, 0, False, None),
        (3, 0, 1, False, StudyState.COMPLETED),
        (3, 0, 3, False, StudyState.FAILED),
        (2, 1, 0, True, None),
        (2, 0, 0, True, StudyState.COMPLETED),
        (0, 0, 0, True, StudyState.COMPLETED),
    ],
)
def test_a_study_ends_with_its_last_planned_trial(
    created: int, still_open: int, failed: int, no_more: bool, state: StudyState | None
) -> None:
    assert state == study_end(
        num_trials_planned=3,
        num_created=created,
        num_open=still_open,
        num_failed=failed,
        no_more=no_more,
    )


def test_no_verb_reopens_a_study_that_has_ended() -> None:
    for sources in STUDY_VERBS.values():
        assert all(source in OPEN_STUDY or target is source for source, target in sources.items())


@pytest.mark.parametrize("verb", list(STUDY_VERBS))
def test_repeating_a_verb_changes_nothing(verb: str) -> None:
    for source, target in STUDY_VERBS[verb].items():
        done = verb_is_done(verb, target, stopping=verb == "stop", archived=verb == "archive")
        assert done, (verb, source)


@pytest.mark.parametrize("search", [state for state in StudyState if state != "COMPLETED"])
@pytest.mark.parametrize("is_settled", [True, False])
def test_an_arm_stands_as_its_search_until_that_is_complete(
    search: StudyState, is_settled: bool
) -> None:
    for fresh in (None, StudyState.COMPLETED):
        assert arm_state("run", search, is_settled=is_settled, fresh=fresh) is search


@pytest.mark.parametrize(
    ("told_to", "expected"), [("run", "RUNNING"), ("pause", "PAUSED"), ("cancel", "CANCELLED")]
)
def test_an_arm_whose_winner_is_to_be_trained_again(told_to: ToldTo, expected: str) -> None:
    for fresh in (None, StudyState.COMPLETED):
        state = arm_state(told_to, StudyState.COMPLETED, is_settled=False, fresh=fresh)
        assert state == expected


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (None, "FAILED"),
        ("QUEUED", "RUNNING"),
        ("RUNNING", "RUNNING"),
        ("PAUSED", "PAUSED"),
        ("COMPLETED", "COMPLETED"),
        ("FAILED", "FAILED"),
        ("CANCELLED", "CANCELLED"),
    ],
)
def test_an_arm_whose_winner_is_known(fresh: str | None, expected: str) -> None:
    given = None if fresh is None else StudyState(fresh)
    assert arm_state("run", StudyState.COMPLETED, is_settled=True, fresh=given) == expected


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ("QUEUED QUEUED", "QUEUED"),
        ("QUEUED COMPLETED", "RUNNING"),
        ("QUEUED PAUSED", "RUNNING"),
        ("PAUSED COMPLETED", "PAUSED"),
        ("RUNNING FAILED", "RUNNING"),
        ("COMPLETED FAILED", "COMPLETED"),
        ("COMPLETED CANCELLED", "COMPLETED"),
        ("FAILED CANCELLED", "FAILED"),
        ("FAILED FAILED", "FAILED"),
    ],
)
def test_a_comparison_stands_as_its_arms_imply(arms: str, expected: str) -> None:
    states = [StudyState(state) for state in arms.split()]
    assert comparison_state("run", states) == expected
    paused = "PAUSED" if OPEN_STUDY & {*states} else expected
    assert comparison_state("pause", states) == paused
    assert comparison_state("cancel", states) is StudyState.CANCELLED
