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

from service.protocol import RunEnded, RunOrder, RunReport, StudyRules
from service.worker.api import CallFailed
from service.worker.holdings import STOP_GRACE_SECONDS, Holdings
from service.worker.messages import DeviceEvent, Died, Hello, Key, Started, key_of
from service.worker.session import Answer, Call, Register, Session
from tests.worker.fakes import FakeApi, ManualClock, device_info

DEVICES = ("cpu:0", "cuda:0")
NUM_EPOCHS = 3
NUM_RUNS = 30
FATES = ("answered", "answered twice", "lost", "answer lost")
MISHAPS = ("cancel", "cancel", "die and restart", "die", "fail to boot", "hang", "lose the worker")


class FakeDevice:
    """A device process whose messages lie in a pipe until they are delivered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pipe: deque[DeviceEvent] = deque()
        self.queue: dict[Key, RunOrder] = {}
        self.training: Key | None = None
        self.epoch = 0
        self.stopping = False
        self.up = False
        self.begun: set[Key] = set()
        self.stopped: set[Key] = set()
        self.crashes: set[Key] = set()
        self.boot()

    # ---- what the agent does to it

    def start(self, order: RunOrder) -> None:
        key = key_of(order)
        assert order.device == self.name
        assert key not in self.stopped, "a stopped run never starts again"
        assert key not in self.queue, "a run waits once"
        if self.up:
            assert key not in self.begun, "a run that began is not given again"
            self.queue[key] = order

    def stop(self, key: Key) -> None:
        self.stopped.add(key)
        if key == self.training:
            self.stopping = True
        self.queue.pop(key, None)

    def set_rules(self, rules: StudyRules) -> None:
        pass

    def kill(self) -> None:
        self.die(blame=False)

    # ---- what happens in it

    def boot(self) -> None:
        self.up = True
        self.pipe.append(Hello(device_info(self.name), None))

    def work(self, outcome: str) -> None:
        """One step: begin a run, train an epoch, or end."""
        if not self.up:
            return
        if self.training is None:
            if self.queue:
                self.training, self.epoch, self.stopping = next(iter(self.queue)), 0, False
                del self.queue[self.training]
                self.begun.add(self.training)
                self.pipe.append(Started(self.training, "program"))
            return
        run, attempt = self.training
        if self.stopping and self.epoch:
            self._end("stopped")
        elif outcome in ("crashed", "out_of_memory"):
            self.crashes.add(self.training)
            self._end(outcome)
        elif self.epoch == NUM_EPOCHS:
            self._end(outcome)
        else:
            self.epoch += 1
            metrics = {"loss": 1.0 / self.epoch}
            self.pipe.append(RunReport(run=run, attempt=attempt, epoch=self.epoch, metrics=metrics))

    def die(self, *, blame: bool = True) -> None:
        if not self.up:
            return
        if blame and self.training is not None:
            self.crashes.add(self.training)
        self.up, self.training = False, None
        self.queue.clear()
        self.pipe.append(Died("died with signal 9 (Killed)"))

    def _end(self, outcome: str) -> None:
        assert self.training is not None
        run, attempt = self.training
        self.pipe.append(
            RunEnded.model_validate({"run": run, "attempt": attempt, "outcome": outcome})
        )
        self.training = None


class AgentMachine(RuleBasedStateMachine):
    """The agent without its processes and threads, against an api that is strict and a world that
    is not."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.api = FakeApi(sync_interval_seconds=0.5)
        for run in range(1, NUM_RUNS + 1):
            self.api.add(run)
        self.devices = {name: FakeDevice(name) for name in DEVICES}
        self.holdings = Holdings(self.devices, self.clock)
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
        outcome=st.sampled_from(["complete", "diverged", "crashed", "out_of_memory"]),
    )
    def work(self, name: str, num_steps: int, outcome: str) -> None:
        for step in range(1, num_steps + 1):
            self.devices[name].work(outcome if step == num_steps else "complete")

    @rule(name=st.sampled_from(DEVICES), num_events=st.sampled_from([1, 2, 3, 100]))
    def deliver(self, name: str, num_events: int) -> None:
        pipe = self.devices[name].pipe
        for _ in range(min(num_events, len(pipe))):
            self.holdings.hear(name, pipe.popleft())

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
        self.holdings.kill_overdue()

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
        for _ in range(100):
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
