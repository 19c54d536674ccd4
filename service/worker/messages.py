"""What the agent and the process of a device say to each other, over two pipes.

To the device: a `RunOrder` for each run to train, in the order they arrive, before it the
`Checkpoint` that it goes on from; `Stop`; and the pruning rules of studies.  From the device:
`Hello` or `CannotStart` once; then for each run `Preparing` and `Prepared`, `Started`, its reports,
checkpoints and end; `Idle` where that changes; and a `Beat` every BEAT_SECONDS.  The device sends
lists of messages, which all are in the pipe before it goes on to what could end its process, so
that what it said before it died is heard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline.service.protocol import (
    DatasetInfo,
    DeviceInfo,
    RunEnded,
    RunKey,
    RunOrder,
    RunReport,
    StudyRules,
)

BEAT_SECONDS = 1.0

Key = tuple[int, int]
"""A run and its attempt: one handing-out."""


def key_of(item: RunKey) -> Key:
    return item.run, item.attempt


@dataclass(frozen=True)
class Survey:
    """What only a process that has torch can find out about this machine."""

    devices: tuple[str, ...]
    datasets: tuple[DatasetInfo, ...]
    """Those built in, without the folders of the data root."""


@dataclass(frozen=True)
class Hello:
    """The device is ready for orders."""

    info: DeviceInfo
    survey: Survey | None


@dataclass(frozen=True)
class CannotStart:
    """The device cannot be used; its process ends after this."""

    reason: str


@dataclass(frozen=True)
class Preparing:
    """The device is at what this run alone needs, such as its data, until `Prepared` or its end."""

    key: Key


@dataclass(frozen=True)
class Prepared:
    """The run waits for a slot."""

    key: Key


@dataclass(frozen=True)
class Started:
    """The run trains from now on, maybe beside others; it has not been touched before this."""

    key: Key
    program: str


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after an epoch that was reported before.

    Attributes:
        program: in which alone the run goes on from there.
        content: what the trainer made of it, and takes again.
    """

    key: Key
    epoch: int
    program: str
    content: bytes


@dataclass(frozen=True)
class Idle:
    """How many slots packs in training compute without a run from now on."""

    num_slots: int


@dataclass(frozen=True)
class Beat:
    """The process lives, and what does not go on in it.

    Attributes:
        turn_seconds: by run that is trained now, for how long its turn has lasted already.
        loop_seconds: for how long the main thread has been at one thing; 0 where it has none.
    """

    turn_seconds: Mapping[Key, float]
    loop_seconds: float


@dataclass(frozen=True)
class Released:
    """A run comes back unharmed, and nobody is to blame.

    `limit` is how many may train at once when it is tried again; None: as many as there are slots.
    """

    end: RunEnded
    limit: int | None


@dataclass(frozen=True)
class Stop:
    """Train the run no further; the end of one that trains is told, a waiting one just goes."""

    key: Key


@dataclass(frozen=True)
class Died:
    """Not said by the device but seen by the agent: its process is gone.

    `is_hung` says that it was killed, as nothing went on in it any more.
    """

    how: str
    is_hung: bool = False


FromDevice = (
    Hello
    | CannotStart
    | Preparing
    | Prepared
    | Started
    | Idle
    | Beat
    | RunReport
    | Checkpoint
    | RunEnded
    | Released
)
ToDevice = RunOrder | Checkpoint | Stop | StudyRules
DeviceEvent = FromDevice | Died
