"""The agent: passes on what devices say to the api, and what the api wants to the devices.

Everything happens in one thread, but for the calls to the api.  Those take as long as the network
does, and meanwhile a dead device must be noticed and a full pipe be emptied.  Checkpoints have
threads of their own, so that no call waits for them.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from random import Random

from ridgeline.search.scratch import sweep
from ridgeline.search.tasks.registry import log_left_out
from ridgeline.service.client import Client
from ridgeline.service.logs import LogFormat
from ridgeline.service.protocol import DatasetInfo
from ridgeline.service.worker.api import Api, CallFailed, HttpApi, made
from ridgeline.service.worker.backend import EngineBackend
from ridgeline.service.worker.cache import cache_folder
from ridgeline.service.worker.child import SCRATCH_PREFIX
from ridgeline.service.worker.folders import WatchedFolders
from ridgeline.service.worker.functions.device import FUNCTION_SCRATCH_PREFIX, FunctionDevice
from ridgeline.service.worker.functions.slots import FunctionSlots, slots_of
from ridgeline.service.worker.holdings import Holdings
from ridgeline.service.worker.machine import num_cores
from ridgeline.service.worker.messages import CannotStart, Died, FromDevice, Hello, Survey
from ridgeline.service.worker.process import DeviceProcess
from ridgeline.service.worker.session import Answer, Call, Register, Session
from ridgeline.service.worker.training import Backend, DeviceSpec
from ridgeline.service.worker.transfers import Transfers

HANG_UP_SECONDS = 2.0
"""How long device processes have to end when the worker leaves; then they are killed."""

LEAVE_SECONDS = 8.0
"""How long a leaving worker tries to tell the api, which otherwise waits for the lease to end."""

_log = logging.getLogger(__name__)


MAX_DEATHS_AT_START = 3
"""Of a device's process that has never been ready."""


class _Unusable(Exception):
    """The worker cannot go on; the text tells a person why, in one line."""


class _CannotStart(_Unusable):
    """What the worker was given cannot be used here, so starting it again would be in vain."""


def run_worker(
    url: str,
    token: str | None,
    *,
    name: str,
    data_root: Path | None,
    devices: Sequence[str] | None,
    device_threads: int | None,
    pack_width: int | None,
    compile: bool,
    cache_dir: Path | None,
    checkpoint_seconds: float,
    log_format: LogFormat,
    hang_seconds: float,
    function_slots: int | None,
) -> int:
    """Train runs of the service at `url` until a SIGTERM or SIGINT; call it in the main thread.

    Args:
        name: what people see this worker by.
        data_root: folder whose sub-folders are data sets.
        devices: such as cuda:0 or cpu:0; None takes every GPU, or the CPU where there is none.
        device_threads: of a CPU device, to train on; None takes one for each core.
        pack_width: slots of every pack; None takes what suits the runs and the device.
        compile: whether programs may be compiled.
        cache_dir: the folder for them; None takes one in the user's cache.
        checkpoint_seconds: of training, between two checkpoints of a run.
        log_format: of the processes of devices.
        hang_seconds: a device without progress for longer is taken for hung.
        function_slots: functions that are called at once; None takes one for each core.

    Returns:
        The status to exit with: 0, 2 where it cannot use what it was given, 1 where it cannot go on
        for another reason; the log explains both.
    """
    try:
        client = Client(url, token, retry_delays_seconds=())  # the session has its own
    except ValueError as exc:
        _log.critical("%s", exc)
        return 2
    try:
        cache = cache_folder(cache_dir) if compile else None
    except OSError as exc:
        _log.critical("RIDGELINE_CACHE_DIR: %s", exc)
        return 2
    specs = [
        replace(
            spec,
            width=pack_width,
            compile=compile,
            cache=cache,
            checkpoint_seconds=checkpoint_seconds,
            log_format=log_format,
        )
        for spec in device_specs(data_root, devices, device_threads)
    ]
    with client:
        agent = Agent(
            HttpApi(client),
            name=name,
            specs=specs,
            backend=EngineBackend(),
            hang_seconds=hang_seconds,
            function_slots=slots_of(function_slots),
            clock=time.monotonic,
            random=Random(),
        )
        with leaving_on_signals(agent):
            return agent.run()


def device_specs(
    data_root: Path | None, devices: Sequence[str] | None, device_threads: int | None
) -> list[DeviceSpec]:
    """The devices to start with; the first one surveys the machine."""
    names: list[str | None] = [None] if devices is None else [*dict.fromkeys(devices)]
    threads = device_threads or num_cores()
    return [DeviceSpec(name, data_root, threads, survey=i == 0) for i, name in enumerate(names)]


@contextmanager
def leaving_on_signals(agent: Agent) -> Iterator[None]:
    """Have the agent leave when this process is told to end."""
    before = {
        number: signal.signal(number, lambda *_: agent.leave())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Agent:
    """One worker, from its start to its end.

    Args:
        specs: the devices; where the first has no name, it and all others follow from its survey.
        hang_seconds: as a `Device` and a `DeviceProcess` have them.
        function_slots: None where no functions are called.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        specs: Sequence[DeviceSpec],
        backend: Backend,
        hang_seconds: float,
        function_slots: FunctionSlots | None,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._api = api
        self._name = name
        self._specs = specs
        self._backend = backend
        self._hang_seconds = hang_seconds
        self._function_slots = function_slots
        self._clock = clock
        self._random = random
        self._processes: list[DeviceProcess | FunctionDevice] = []
        self._transfers = Transfers(api, self._wake)
        self._answers: SimpleQueue[Answer | CallFailed] = SimpleQueue()
        self._num_leave_requests = 0
        self._built_in: tuple[DatasetInfo, ...] = ()
        self._folders = WatchedFolders(specs[0].data_root, self._wake)
        self._wake_reader, self._wake_writer = multiprocessing.Pipe(duplex=False)
        os.set_blocking(self._wake_reader.fileno(), False)
        os.set_blocking(self._wake_writer.fileno(), False)

    def leave(self) -> None:
        """Have the worker end; may be called from any thread and from a signal handler.

        The second call ends it without waiting for the api.
        """
        self._num_leave_requests += 1
        self._wake()

    def run(self) -> int:
        """Work until told to leave; returns the status to exit with."""
        for prefix in (SCRATCH_PREFIX, FUNCTION_SCRATCH_PREFIX):
            sweep(prefix)
        log_left_out()
        try:
            started = self._start_devices()
            if started is not None:
                self._work(*started)
        except _Unusable as exc:
            _log.critical("%s", exc)
            return 2 if isinstance(exc, _CannotStart) else 1
        finally:
            self._end_devices()
            self._folders.stop()
            self._transfers.stop()
        return 0

    # ---- the two halves of its life

    def _start_devices(self) -> tuple[Holdings, Session] | None:
        """Start a process for each device and wait until all are ready; None when told to leave."""
        for spec in self._specs:
            self._launch(spec)
        if self._function_slots is not None:
            self._processes.append(
                FunctionDevice(self._function_slots, clock=self._clock, wake=self._wake)
            )
        self._folders.start()  # while they start
        hellos: dict[str, Hello] = {}
        num_deaths: Counter[str] = Counter()
        survey: Survey | None = None
        while survey is None or len(hellos) < len(self._processes):
            self._wait(math.inf)
            if self._num_leave_requests:
                return None
            for process in list(self._processes):
                for event in process.poll():
                    match event:
                        case Hello():
                            hellos[process.name] = event
                            survey = survey or event.survey
                        case CannotStart(reason=reason):
                            raise _CannotStart(f"{process.name} cannot be used: {reason}")
                        case Died(how=how):
                            if hellos.pop(process.name, None) is None:
                                num_deaths[process.name] += 1
                            if num_deaths[process.name] >= MAX_DEATHS_AT_START:
                                raise _CannotStart(
                                    f"{process.name} cannot be used: at each of its starts "
                                    f"the process {how}"
                                )
                            _log.warning("the process of %s %s at its start", process.name, how)
            if survey is not None:
                for name in survey.devices:
                    if all(process.name != name for process in self._processes):
                        self._launch(replace(self._specs[0], name=name, survey=False))
        self._built_in = survey.datasets
        holdings = Holdings(
            {process.name: process for process in self._processes},
            self._clock,
            hang_seconds=self._hang_seconds,
        )
        for name, hello in hellos.items():
            holdings.hear(name, hello)
        return holdings, Session(
            self._name,
            self._datasets(),
            holdings,
            clock=self._clock,
            random=self._random,
        )

    def _work(self, holdings: Holdings, session: Session) -> None:
        leave_by = math.inf
        self._transfers.start()
        while not session.over and self._clock() < leave_by and self._num_leave_requests < 2:
            session.datasets = self._datasets()
            self._call(session)
            self._wait(min(session.due_at, holdings.due_at, leave_by))
            for process in self._processes:
                for event in process.poll():
                    holdings.hear(process.name, event)
            holdings.end_overdue()
            while not self._answers.empty():
                self._take(session, self._answers.get())
            self._transfer(session, holdings)
            if self._num_leave_requests and leave_by == math.inf:
                leave_by = self._clock() + LEAVE_SECONDS
                for name, event in self._end_devices():
                    holdings.hear(name, event)
                session.leave()
        _log.info("left" if session.over else "left, and the api has not heard of it")

    def _datasets(self) -> tuple[DatasetInfo, ...]:
        return *self._built_in, *self._folders.datasets

    # ---- devices

    def _launch(self, spec: DeviceSpec) -> None:
        self._processes.append(
            DeviceProcess(
                spec,
                self._backend,
                hang_seconds=self._hang_seconds,
                clock=self._clock,
                random=self._random,
                wake=self._wake,
            )
        )

    def _end_devices(self) -> list[tuple[str, FromDevice]]:
        """End every device process; what they said up to then, with the devices' names."""
        for process in self._processes:
            process.hang_up()
        deadline = self._clock() + HANG_UP_SECONDS
        said = [(p.name, message) for p in self._processes for message in p.finish(deadline)]
        self._processes.clear()
        return said

    # ---- the api

    def _call(self, session: Session) -> None:
        """Make the next call in a thread of its own, if one is due."""
        call = session.next_call()
        if call is not None:
            threading.Thread(target=self._make, args=(call,), name="api", daemon=True).start()

    def _make(self, call: Call) -> None:
        answer: Answer | CallFailed
        if isinstance(call, Register):
            answer = made(partial(self._api.register_worker, call.registration))
        else:
            answer = made(partial(self._api.sync, call.worker_id, call.request))
        self._answers.put(answer)
        self._wake()

    def _take(self, session: Session, answer: Answer | CallFailed) -> None:
        if isinstance(answer, CallFailed):
            session.failed(answer)
        else:
            session.answered(answer)
        if session.fatal is not None:
            raise _Unusable(session.fatal)

    def _transfer(self, session: Session, holdings: Holdings) -> None:
        """Pass on checkpoints: those that came, and those that are to be sent or got."""
        for key, checkpoint in self._transfers.fetched():
            holdings.fetched(key, checkpoint)
        if session.worker_id is None:
            return  # whatever is held then was dropped
        for order in holdings.checkpoints_to_fetch():
            self._transfers.fetch(session.worker_id, order)
        for saved in holdings.checkpoints_to_send():
            self._transfers.send(session.worker_id, saved)

    # ---- waiting

    def _wait(self, until: float) -> None:
        """Wait for a device, an answer, a wish to leave, or a time on the clock."""
        until = min([until, *(process.due_at for process in self._processes)])
        timeout = None if until == math.inf else max(0.0, until - self._clock())
        wait([self._wake_reader], timeout)
        with suppress(BlockingIOError):
            os.read(self._wake_reader.fileno(), 1_000)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full of wishes to wake up already
            os.write(self._wake_writer.fileno(), b".")
