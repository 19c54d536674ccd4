"""Any order of calls lost and repeated, devices that work, die and hang, stops and lost leases."""

from __future__ import annotations

from collections import deque
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from ridgeline.service.protocol import RunEnded, RunOrder, RunReport, StudyRules
from ridgeline.service.worker.api import CallFailed
from ridgeline.service.worker.devices import STOP_GRACE_SECONDS
from ridgeline.service.worker.holdings import Holdings
from ridgeline.service.worker.messages import (
    Checkpoint,
    DeviceEvent,
    Died,
    Hello,
    Key,
    Prepared,
    Preparing,
    Released,
    Started,
    key_of,
)
from ridgeline.service.worker.session import Answer, Call, Register, Session
from tests.worker.fakes import HANG_SECONDS, FakeApi, ManualClock, device_info

DEVICES = ("cpu:0", "cuda:0")
NUM_SLOTS = 4
NUM_EPOCHS = 3
NUM_RUNS = 30
POISON = {5, 6, 17}
"""Runs that kill the process of their device as soon as they train."""
FATES = ("answered", "answered twice", "lost", "answer lost")
OUTCOMES = ("complete", "diverged", "crashed", "out_of_memory", "refused", "pack broken")
MISHAPS = ("cancel", "cancel", "die and restart", "die", "fail to boot", "hang", "lose the worker")


class FakeDevice:
    """A device process whose messages lie in a pipe until they are delivered.

    `halved` is how many may train at once while a run is among them, by run: as many as half of
    those that were in it when its pack or its process last failed.
    """

    def __init__(self, name: str, halved: dict[int, int]) -> None:
        self.name = name
        self.halved = halved
        self.pipe: deque[DeviceEvent] = deque()
        self.queue: dict[Key, int] = {}
        self.training: dict[Key, int] = {}
        self.limits: dict[Key, int] = {}
        self.died_with: list[Key] = []
        self.up = False
        self.begun: set[Key] = set()
        self.stopped: set[Key] = set()
        self.crashes: set[Key] = set()
        self.boot()

    # ---- what the agent does to it

    isolates = False

    def start(self, order: RunOrder, checkpoint: Checkpoint | None) -> None:
        key = key_of(order)
        assert order.device == self.name
        assert key not in self.stopped, "a stopped run never starts again"
        assert key not in self.queue, "a run waits once"
        if self.up:
            assert key not in self.begun, "a run that began is not given again"
            self.queue[key] = self.halved.get(order.run, NUM_SLOTS)

    def stop(self, key: Key) -> None:
        self.stopped.add(key)
        self.halved.pop(key[0], None)
        self.queue.pop(key, None)

    def set_rules(self, rules: StudyRules) -> None:
        pass

    def kill(self, why: str, *, is_hung: bool) -> None:
        self.die()
        self.died_with = []

    # ---- what happens in it

    def boot(self) -> None:
        self.up = True
        self.pipe.append(Hello(device_info(self.name, NUM_SLOTS), None))

    def work(self, outcome: str) -> None:
        """One step: heed stops, refill the slots, then train an epoch of each run, or end it."""
        for key in self.stopped & self.training.keys():
            self._end(key, "stopped")
        while self.up and self.queue and len(self.training) < NUM_SLOTS:
            key = next(iter(self.queue))
            self.limits[key] = self.queue.pop(key)
            self.pipe.append(Preparing(key))
            if outcome == "refused":
                self.crashes.add(key)
                self._end(key, "crashed")
                return
            self.pipe += (Prepared(key), Started(key, "program"))
            self.begun.add(key)
            self.training[key] = 0
            # A run that was stopped a moment ago may still train beside these.
            ours = [other for other in self.training if other not in self.stopped]
            assert len(ours) <= min((self.limits[other] for other in ours), default=NUM_SLOTS)
            if key[0] in POISON:
                self.die()
        if outcome == "pack broken" and len(self.training) > 1:
            limit = len(self.training) // 2
            for key in list(self.training):
                run, attempt = key
                end = RunEnded(run=run, attempt=attempt, outcome="released")
                self._leave(key, Released(end, limit))
        for key, epoch in list(self.training.items()):
            run, attempt = key
            if outcome in ("crashed", "out_of_memory"):
                self.crashes.add(key)
                self._end(key, outcome)
                return
            if epoch == NUM_EPOCHS:
                self._end(key, outcome if outcome == "diverged" else "complete")
                continue
            self.training[key] = epoch = epoch + 1
            metrics = {"loss": 1.0 / epoch}
            self.pipe.append(RunReport(run=run, attempt=attempt, epoch=epoch, metrics=metrics))

    def die(self) -> None:
        if not self.up:
            return
        if len(self.training) == 1:
            self.crashes |= self.training.keys()
        self.up = False
        self.died_with = list(self.training)
        self.training.clear()
        self.queue.clear()
        self.pipe.append(Died("died with signal 9 (Killed)"))

    def delivered(self, event: DeviceEvent) -> None:
        """The agent has heard of it."""
        match event:
            case Died():
                limit = max(1, len(self.died_with) // 2)
                for key in self.died_with:
                    self._halve(key, limit)
                self.died_with = []
            case Released(end=end, limit=int(limit)):
                self._halve(key_of(end), limit)
            case RunEnded(outcome="complete" | "diverged" | "out_of_memory"):
                self.halved.pop(event.run, None)

    def _halve(self, key: Key, limit: int) -> None:
        if key not in self.stopped:  # else it is not the agent's any more
            self.halved[key[0]] = min(limit, self.halved.get(key[0], limit))

    def _end(self, key: Key, outcome: str) -> None:
        run, attempt = key
        end = RunEnded.model_validate({"run": run, "attempt": attempt, "outcome": outcome})
        self._leave(key, end)

    def _leave(self, key: Key, message: DeviceEvent) -> None:
        self.training.pop(key, None)
        self.pipe.append(message)


class AgentMachine(RuleBasedStateMachine):
    """The agent without its processes and threads, against an api that is strict and a world that
    is not."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.api = FakeApi(sync_interval_seconds=0.5)
        for run in range(1, NUM_RUNS + 1):
            self.api.add(run)
        halved: dict[int, int] = {}
        self.devices = {name: FakeDevice(name, halved) for name in DEVICES}
        self.holdings = Holdings(self.devices, self.clock, hang_seconds=HANG_SECONDS)
        self.session = Session("worker", (), self.holdings, clock=self.clock, random=Random(0))
        self.call: Call | None = None
        self.leaves = False
        for name in DEVICES:
            self.deliver(name, 100)
        for _ in ("register", "get the first runs"):
            self.round_trip()

    @initialize(leaves=st.booleans())
    def choose_the_end(self, leaves: bool) -> None:
        self.leaves = leaves

    # ---- the api

    @rule(seconds=st.sampled_from([0.0, 0.6, 6.0]))
    def ask(self, seconds: float) -> None:
        self.time_passes(seconds)
        if self.call is None:
            self.call = self.session.next_call()

    @rule(fate=st.sampled_from(FATES))
    def settle(self, fate: str) -> None:
        """What becomes of the call that is on its way."""
        if self.call is None:
            return
        try:
            if fate == "answered twice":
                self.make()
            if fate != "lost":
                answer = self.make()
            if fate in ("lost", "answer lost"):
                raise CallFailed(None, fate)
        except CallFailed as exc:
            self.call = None
            self.session.failed(exc)
        else:
            self.call = None
            self.session.answered(answer)

    @rule(
        fate=st.sampled_from(FATES),
        name=st.sampled_from(DEVICES),
        num_steps=st.integers(0, 2 * NUM_EPOCHS),
    )
    def exchange(self, fate: str, name: str, num_steps: int) -> None:
        """A call, while which a device goes on."""
        self.ask(6.0)
        self.work(name, num_steps, "complete")
        self.deliver(name, 100)
        self.settle(fate)

    def round_trip(self) -> None:
        self.ask(6.0)
        self.settle("answered")

    # ---- the devices

    @rule(
        name=st.sampled_from(DEVICES),
        num_steps=st.integers(1, NUM_EPOCHS + 2),
        outcome=st.sampled_from(OUTCOMES),
    )
    def work(self, name: str, num_steps: int, outcome: str) -> None:
        for step in range(1, num_steps + 1):
            self.devices[name].work(outcome if step == num_steps else "complete")

    @rule(name=st.sampled_from(DEVICES), num_events=st.sampled_from([1, 2, 3, 100]))
    def deliver(self, name: str, num_events: int) -> None:
        device = self.devices[name]
        for _ in range(min(num_events, len(device.pipe))):
            event = device.pipe.popleft()
            self.holdings.hear(name, event)
            device.delivered(event)

    @rule(name=st.sampled_from(DEVICES), num_runs=st.integers(1, 3))
    def finish_runs(self, name: str, num_runs: int) -> None:
        self.boot(name)
        for _ in range(num_runs):
            self.work(name, NUM_EPOCHS + 2, "complete")
            self.deliver(name, 100)

    # ---- what goes wrong less often

    @rule(name=st.sampled_from(DEVICES), what=st.sampled_from(MISHAPS), data=st.data())
    def mishap(self, name: str, what: str, data: st.DataObject) -> None:
        device = self.devices[name]
        match what:
            case "die":
                device.die()
            case "die and restart":
                device.die()
                self.boot(name)
            case "fail to boot":
                device.die()
                self.deliver(name, 100)
                device.pipe.append(Died("ended with code 1"))
            case "hang":
                self.time_passes(STOP_GRACE_SECONDS)
            case "lose the worker":
                for worker_id, worker in self.api.workers.items():
                    if worker.state == "LIVE":
                        self.api.lose(worker_id)
            case "cancel":
                open_runs = self.open_runs()
                running = [run for run in open_runs if self.api.runs[run].state == "RUNNING"]
                if running:
                    self.api.cancel(data.draw(st.sampled_from(running)))

    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.holdings.end_overdue()

    def boot(self, name: str) -> None:
        device = self.devices[name]
        if not device.up:
            self.deliver(name, 100)  # a process is started once the one before is buried
            device.boot()

    # ---- what holds

    @invariant()
    def charges_are_deserved(self) -> None:
        deserved = {key for device in self.devices.values() for key in device.crashes}
        for run in self.api.runs.values():
            blamed = {key_of(e) for e in run.ends if e.outcome in ("crashed", "out_of_memory")}
            assert blamed <= deserved

    @invariant()
    def complete_runs_have_all_reports(self) -> None:
        for run in self.api.runs.values():
            if run.state == "DONE" and run.ends[-1].outcome == "complete":
                assert sorted(run.epochs) == list(range(1, NUM_EPOCHS + 1))

    @invariant()
    def the_worker_goes_on(self) -> None:
        assert self.session.fatal is None

    def teardown(self) -> None:
        """With the world at peace again, all runs end, and a worker that leaves holds none."""
        if self.leaves:
            self.session.leave()
        for _ in range(200):
            if self.session.over if self.leaves else not self.open_runs():
                break
            for name in DEVICES:
                self.finish_runs(name, 1)
            self.round_trip()
        else:
            raise AssertionError("it does not come to an end")
        assert not any(run.state == "RUNNING" for run in self.api.runs.values())
        self.charges_are_deserved()
        self.complete_runs_have_all_reports()
        assert self.leaves or all(self.api.runs[run].state != "DONE" for run in POISON)

    # ----

    def open_runs(self) -> list[int]:
        runs = self.api.runs
        return [run for run in runs if runs[run].state in ("WAITING", "RUNNING")]

    def make(self) -> Answer:
        assert self.call is not None
        if isinstance(self.call, Register):
            return self.api.register_worker(self.call.registration)
        return self.api.sync(self.call.worker_id, self.call.request)


TestAgentMachine = AgentMachine.TestCase
TestAgentMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
