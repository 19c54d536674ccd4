"""What a device process says of its runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from ridgeline.search.engine.measures import LayerMeasures, Measures, WeightHistogram
from ridgeline.search.events import Event, Over, Reported
from ridgeline.service.protocol import RunEnded, RunReport, StudyRules
from ridgeline.service.worker.bench import MAX_LOG, Bench, LogTail
from ridgeline.service.worker.messages import (
    FromDevice,
    Idle,
    Key,
    Prepared,
    Preparing,
    Released,
    Started,
    Stop,
)
from tests.worker.fakes import ManualClock, order
from tests.worker.trainers import PROGRAM, Epoch, Outcome, ScriptedTrainer


class Said(list[FromDevice]):
    """Everything that a bench says."""

    def ends(self) -> dict[int, RunEnded]:
        return {message.run: message for message in self if isinstance(message, RunEnded)}

    def outcomes(self) -> dict[int, str]:
        return {run: end.outcome for run, end in self.ends().items()}

    def released(self) -> dict[int, int | None]:
        return {m.end.run: m.limit for m in self if isinstance(m, Released)}


class Desk:
    """A bench, and what it said of runs; of idle slots it keeps the numbers apart."""

    def __init__(self, tail: LogTail, *, num_slots: int = 4, frail: bool = False) -> None:
        self.said = Said()
        self.idle: list[int] = []
        self.clock = ManualClock()
        self.trainer = ScriptedTrainer(num_slots)
        self.bench = Bench(self.trainer, tail, self._hear, frail=frail, clock=self.clock)

    def _hear(self, messages: Sequence[FromDevice]) -> None:
        for message in messages:
            if isinstance(message, Idle):
                self.idle.append(message.num_slots)
            else:
                self.said.append(message)

    def add(self, *tasks: dict[str, Any]) -> None:
        for run, task in enumerate(tasks, start=1):
            self.bench.take(order(run, **task))

    def train(self, *tasks: dict[str, Any]) -> Said:
        """Have runs with these tasks trained to their ends."""
        self.add(*tasks)
        while not self.bench.is_idle:
            self.bench.advance()
        return self.said


@pytest.fixture
def tail() -> Iterator[LogTail]:
    """A tail of everything that is logged."""
    tail = LogTail()
    root = logging.getLogger()
    level = root.level
    root.addHandler(tail)
    root.setLevel(logging.INFO)
    yield tail
    root.removeHandler(tail)
    root.setLevel(level)


@pytest.fixture
def desk(tail: LogTail) -> Desk:
    return Desk(tail)


def test_a_run_says_that_it_begins_each_epoch_and_its_end(desk: Desk) -> None:
    preparing, prepared, started, *reports, end = desk.train({"epochs": 3})
    assert (preparing, prepared) == (Preparing((1, 1)), Prepared((1, 1)))
    assert started == Started((1, 1), PROGRAM)
    assert [r.epoch for r in reports if isinstance(r, RunReport)] == [1, 2, 3]
    assert isinstance(end, RunEnded)
    assert (end.outcome, end.value, end.kept_epoch) == ("complete", 1.0, 1)
    assert (end.metrics, end.program) == ({"test_accuracy": 0.25}, PROGRAM)
    assert (end.error, end.log_tail) == (None, None)


def test_a_slot_is_refilled_when_its_run_ends(tail: LogTail) -> None:
    said = Desk(tail, num_slots=2).train({"epochs": 4}, {"epochs": 1}, {"epochs": 1})
    order_of = {(type(m), m.key[0]): at for at, m in enumerate(said) if isinstance(m, Started)}
    ends = {m.run: at for at, m in enumerate(said) if isinstance(m, RunEnded)}
    assert ends[2] < order_of[Started, 3] < ends[1]


def test_idle_slots_are_said_when_they_change(tail: LogTail) -> None:
    desk = Desk(tail, num_slots=2)
    desk.train({"epochs": 4}, {"epochs": 1}, {"epochs": 1})
    assert desk.idle == [1, 0]


def test_divergence_is_an_end_of_its_own(desk: Desk) -> None:
    end = desk.train({"end": "diverge"}).ends()[1]
    assert (end.outcome, end.value) == ("diverged", None)
    assert end.error == "the loss was not finite in epoch 3"


def test_a_pruned_run_names_the_rules_that_ended_it(desk: Desk) -> None:
    for version in (3, 4):
        desk.bench.take(
            StudyRules(
                study="study", version=version, metric="loss", direction="minimize", thresholds={}
            )
        )
    end = desk.train({"end": "be_pruned"}).ends()[1]
    assert (end.outcome, end.value, end.rule_version) == ("pruned", 0.5, 4)


def seen_of_weights(**layers: LayerMeasures) -> Measures:
    return Measures({"accuracy": 0.25}, None, layers, {}, WeightHistogram(2, (0,) * 26))


def test_what_is_seen_of_weights_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerMeasures(num_weights=4, weight_norm=2.0, zero_share=0.5, near_zero_share=0.75)
    seen = {1: seen_of_weights(w=layer), 2: seen_of_weights(**{"w" * 1_000: layer})}

    def complete(trainer: ScriptedTrainer, key: Key) -> Iterator[Event]:
        trainer.remove(key)
        yield Over(key, Outcome(measures=seen.get(key[0])))

    monkeypatch.setattr(ScriptedTrainer, "complete", complete)
    said = desk.train({}, {}, {})
    assert said.outcomes() == {1: "complete", 2: "complete", 3: "complete"}
    told = said.ends()[1].measures
    assert told is not None
    assert told.model_dump() == asdict(seen[1])
    assert [said.ends()[run].measures for run in (2, 3)] == [None, None]


def test_an_error_comes_with_its_text_and_the_end_of_the_log(desk: Desk) -> None:
    end = desk.train({"end": "fail"}, {"epochs": 3}).ends()[1]
    assert end.outcome == "crashed"
    assert end.error == "ValueError: weights \\0 and \\ud800 do not fit"
    assert end.log_tail is not None
    assert "INFO tests.worker.trainers: run 2, epoch 2\n" in end.log_tail
    assert end.log_tail.endswith("ValueError: weights \\0 and \\ud800 do not fit\n")
    end.model_dump_json()
    assert desk.said.outcomes()[2] == "complete"


def test_a_long_log_loses_its_beginning(desk: Desk, tail: LogTail) -> None:
    tail.lines.append("x" * MAX_LOG)
    end = desk.train({"end": "fail"}).ends()[1]
    assert end.log_tail is not None
    assert len(end.log_tail) == MAX_LOG
    assert end.log_tail.endswith("do not fit\n")


def test_running_out_of_memory_is_told_apart(desk: Desk) -> None:
    end = desk.train({"end": "run_out_of_memory"}).ends()[1]
    assert (end.outcome, end.error) == ("out_of_memory", "MemoryError: 3 GB needed")


def test_an_order_that_cannot_begin_ends_alone_with_its_error(desk: Desk) -> None:
    said = desk.train({}, {"add": "refuse"}, {})
    assert said.outcomes() == {1: "complete", 2: "crashed", 3: "complete"}
    end = said.ends()[2]
    assert (end.error, end.program) == ("ValueError: there is no data set x", None)
    assert end.log_tail is not None
    assert "Traceback" in end.log_tail
    at = said.index(end)
    assert said[at - 1] == Preparing((2, 1)), "known to be about it should it kill the process"
    assert Prepared((2, 1)) not in said
    assert not any(isinstance(m, Started) and m.key == (2, 1) for m in said)


def test_what_no_run_can_survive_is_told_apart(desk: Desk, tail: LogTail) -> None:
    said = desk.train({"add": "refuse_all"}, {"add": "refuse_all"}, {})
    assert said.outcomes() == {1: "never_trains", 2: "never_trains", 3: "complete"}
    assert said.ends()[1].error == "class 3 has 1 row"
    assert len([line for line in tail.lines if "class 3" in line]) == 1, "once for all runs"


@pytest.mark.parametrize(
    "bad", [Reported((1, 1), Epoch(1, {"loss": math.nan})), Over((1, 1), Outcome(value=math.inf))]
)
def test_a_number_that_json_does_not_have_is_an_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, bad: Event
) -> None:
    train = ScriptedTrainer._train

    def badly(trainer: ScriptedTrainer, key: Key) -> Iterator[Event]:
        return iter([bad, bad]) if key == (1, 1) else train(trainer, key)

    monkeypatch.setattr(ScriptedTrainer, "_train", badly)
    assert desk.train({}, {}).outcomes() == {1: "crashed", 2: "complete"}
    assert [type(m) for m in desk.said].count(RunEnded) == 2, "it ends once"


def test_those_that_fail_together_are_given_back_uncharged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    said = desk.train({}, {"epochs": 1, "end": "break_the_pack"}, {})
    assert said.released() == {1: 1, 2: 1, 3: 1}
    assert said.outcomes() == {}
    assert {m.end.outcome for m in said if isinstance(m, Released)} == {"released"}
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["runs failed: RuntimeError: the pack is broken"], "once for all of them"


def test_one_that_fails_alone_is_charged(desk: Desk) -> None:
    assert desk.train({"end": "break_the_pack"}).outcomes() == {1: "crashed"}


def test_a_stopped_run_frees_its_slot_and_the_others_go_on(tail: LogTail) -> None:
    desk = Desk(tail, num_slots=2)
    desk.add({"end": "linger"}, {}, {}, {})
    for _ in range(3):
        desk.bench.advance()
    for run in (1, 4, 9):
        desk.bench.take(Stop((run, 1)))
    while not desk.bench.is_idle:
        desk.bench.advance()
    expected = {1: "stopped", 2: "complete", 3: "complete", 4: "stopped"}
    assert desk.said.outcomes() == expected
    assert desk.said.ends()[1].program == PROGRAM


def test_what_others_come_to_does_not_change_when_a_run_is_stopped(tail: LogTail) -> None:
    def told(*, stop: bool) -> list[FromDevice]:
        desk = Desk(tail)
        desk.add({"epochs": 9}, {"epochs": 4}, {"epochs": 5})
        desk.bench.advance()
        if stop:
            desk.bench.take(Stop((1, 1)))
        while not desk.bench.is_idle:
            desk.bench.advance()
        return [m for m in desk.said if isinstance(m, RunReport | RunEnded) and m.run != 1]

    assert told(stop=True) == told(stop=False)


def test_a_stop_in_the_same_breath_as_the_order(desk: Desk) -> None:
    desk.add({}, {})
    desk.bench.take(Stop((1, 1)))
    desk.bench.take(Stop((1, 1)))
    while not desk.bench.is_idle:
        desk.bench.advance()
    assert desk.said.outcomes() == {1: "stopped", 2: "complete"}


def test_the_device_time_is_shared_out(tail: LogTail, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tail, num_slots=3)
    train = ScriptedTrainer._train

    def slowly(trainer: ScriptedTrainer, key: Key) -> Iterator[Event]:
        desk.clock.seconds += 1
        return train(trainer, key)

    monkeypatch.setattr(ScriptedTrainer, "_train", slowly)
    desk.add({"epochs": 1}, {"epochs": 3}, {"epochs": 5}, {"epochs": 2})
    desk.clock.seconds += 100  # nothing trains yet
    began = desk.clock()
    while not desk.bench.is_idle:
        desk.bench.advance()
    seconds = [end.device_seconds for end in desk.said.ends().values()]
    assert sum(seconds) == pytest.approx(desk.clock() - began)
    assert all(0 < share < 7 for share in seconds)


# ---- devices that a crash spoils


@pytest.mark.parametrize("end", ["fail", "run_out_of_memory", "diverge"])
def test_some_failures_spoil_nothing(tail: LogTail, end: str) -> None:
    desk = Desk(tail, frail=True)
    desk.train({"end": end}, {"add": "refuse"}, {})
    assert not desk.bench.is_spoilt
    assert desk.said.outcomes()[3] == "complete"


def test_a_crash_spoils_a_frail_device_and_all_others_are_given_back(tail: LogTail) -> None:
    desk = Desk(tail, frail=True)
    desk.add({"epochs": 9}, {"epochs": 1, "end": "fail_oddly"}, {"epochs": 9}, {"epochs": 9}, {})
    while not desk.bench.is_spoilt:
        desk.bench.advance()
    desk.bench.give_back()
    assert desk.said.outcomes() == {2: "crashed"}
    assert desk.said.released() == {1: None, 3: None, 4: None}, "5 has not begun"


def test_nobody_is_charged_for_what_fails_on_a_spoilt_device(tail: LogTail) -> None:
    desk = Desk(tail, frail=True)
    failing = {"epochs": 1, "end": "fail_oddly"}
    desk.add(failing, failing, {"epochs": 9})
    while not desk.bench.is_spoilt:
        desk.bench.advance()
    desk.bench.give_back()
    assert desk.said.outcomes() == {1: "crashed"}
    assert desk.said.released() == {2: None, 3: None}


def test_a_pack_that_spoils_the_device_keeps_its_limit(tail: LogTail) -> None:
    desk = Desk(tail, frail=True)
    desk.add({"epochs": 9}, {"epochs": 1, "end": "break_the_pack"}, {}, {})
    while not desk.bench.is_spoilt:
        desk.bench.advance()
    desk.bench.give_back()
    assert desk.said.released() == {1: 2, 2: 2, 3: 2, 4: 2}
