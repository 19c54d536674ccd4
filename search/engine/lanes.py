"""All that trains on one device: runs wait in lanes, and take a slot the moment one is free.

The packs of all lanes take turns; on a CPU as many have a turn at once as there are threads.  The
device's time is shared fairly among packs.  Nothing here knows of studies, processes or the
network.
"""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Hashable
from concurrent.futures import Future, wait
from functools import partial

import torch

from ridgeline.search.engine.admission import MAX_WIDTH, Widths, free_bytes, is_out_of_memory
from ridgeline.search.engine.checkpoint import CheckpointError
from ridgeline.search.engine.compiled import Job
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.lane import Lane, LaneOptions, savable_seconds
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.memory import bytes_per_slot
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.open_pack import OpenPack, Turn, Waiting
from ridgeline.search.engine.programs import Programs
from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.engine.saved import SavedRun
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.threads import Crew
from ridgeline.search.events import Event, Failed, HandedBack

COMPILE_SECONDS = 20.0
"""Of a core, what compiling a program takes: worth it where runs save as much by it."""

IDLE_COMPILE_SECONDS = 0.1
"""What runs must save for a program to be compiled on cores that are idle, for those to come."""

PATIENCE_SECONDS = 0.5
"""How much more device time others may get than a pack that cannot have its turn beside them."""

_log = logging.getLogger(__name__)


class Lanes:
    """The runs of one device."""

    def __init__(self, device: torch.device, options: LaneOptions) -> None:
        self._device, self._options = device, options
        self._programs = Programs(options.cache if options.compile else None)
        if device.type == "cpu":
            self._programs.prepare()
        self._lanes: dict[Hashable, Lane] = {}
        self._rules: dict[tuple[str, int], PruningRules] = {}
        self._widest: dict[StepSpec, int] = {}
        self._widths = Widths(self._programs.folder)
        self._crew = Crew(options.threads if device.type == "cpu" else 1)
        self._turns: dict[Future[Turn], tuple[Lane, OpenPack]] = {}
        self._num_following: dict[str, int] = {}
        self._missed: dict[Job, float] = defaultdict(float)
        """Seconds that a compiled program would have saved up to now."""

    @property
    def num_slots(self) -> int:
        """How many runs to keep at hand: as many as the widest packs side by side have slots."""
        return self._crew.size * (self._options.width or MAX_WIDTH.get(self._device.type, 1))

    @property
    def is_idle(self) -> bool:
        """Whether no run waits or trains."""
        return not any(lane.has_work for lane in self._lanes.values())

    @property
    def num_open(self) -> int:
        """Runs that wait or train."""
        return sum(lane.num_open for lane in self._lanes.values())

    @property
    def num_idle(self) -> int:
        """Slots of packs in training that no run is in."""
        return sum(lane.num_idle for lane in self._lanes.values())

    def add(
        self,
        key: Hashable,
        config: RunConfig,
        model: Model,
        data: DeviceData,
        *,
        group: str | None = None,
        bracket: int = 0,
        num_following: int = 0,
        pinned: bool = False,
        keep_weights: bool = False,
        checkpoint: bytes | None = None,
    ) -> None:
        """Have a run wait for a slot.

        Args:
            key: names the run in every event.
            group: whose pruning rules it goes by.
            bracket: of the group, which may have rules of its own.
            num_following: runs of the group that are still to come, as far as is known; it tells
                whether compiling a program is worth it.
            pinned: by the same program whatever else waits and whatever has been compiled.
            keep_weights: whether the outcome has the weights; copying them takes time.
            checkpoint: the content of a `Saved` of the same run.  The run goes on from there, in
                the program that made it, and ends with the bits of one that was never stopped.
                Where that program is not at hand, or the content is damaged or of another run, it
                begins anew, which the log tells.

        Raises:
            ValueError: where the model or the loss is not one for the data, or what is monitored
                not one of the loss.
        """
        dtype = str(data.dtype).removeprefix("torch.")
        spec = StepSpec.of(config, model, data.train.num_samples, dtype)
        data.check(model, LOSSES[spec.loss])
        data.check_monitor(LOSSES[spec.loss], config.monitor)
        # Equal data may have been loaded anew: a lane goes on with those that it has.
        lane_key = (spec, data.fingerprint, pinned)
        if lane_key not in self._lanes:
            self._lanes[lane_key] = Lane(
                spec,
                data,
                self._options,
                self._programs,
                widest=self._widest,
                widths=self._widths,
                pinned=pinned,
            )
        lane = self._lanes[lane_key]
        if lane.needs_measuring:
            self.settle()  # by which speeds would be wrong, and packs want the other library
        saved = None if checkpoint is None else _read(checkpoint, config, spec, data)
        lane.add(Waiting(key, config, group, bracket, keep_weights, saved))
        if group is not None:
            self._num_following[group] = num_following

    def remove(self, key: Hashable) -> bool:
        """Take a run out; False where there is none of that key.

        Waits for the turn of its pack to end: whoever removes a run that hangs waits as well.
        """
        for turn, (_, open_pack) in self._turns.items():
            if any(run.key == key for run, _ in open_pack.runs.values()):
                wait([turn])
        return any(lane.remove(key) for lane in self._lanes.values())

    def turns(self) -> dict[Hashable, Future[Turn]]:
        """By run that a pack trains at this moment, its turn; may be called from any thread."""
        return {
            run.key: turn
            for turn, (_, open_pack) in self._turns.copy().items()
            if not turn.done()
            for run, _ in open_pack.runs.copy().values()
        }

    def settle(self) -> None:
        """Wait until no pack has its turn; the next `advance` tells what came of them.

        For what is not to happen beside training, so that it is known whose fault a crash is.
        """
        wait(self._turns)

    def set_rules(self, group: str, rules: PruningRules, *, bracket: int = 0) -> None:
        """Prune the runs of a bracket of a group by these rules from their next epochs on."""
        self._rules[group, bracket] = rules

    def advance(self) -> list[Event]:
        """Train for a moment; what is to be told, in the order in which it came about."""
        # However the last run of a lane went, the lane goes with it, and lets go of its data.
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.has_work}
        if not self._lanes:
            self._num_following.clear()
        for lane in self._lanes.values():
            if lane.has_untried_program:
                self.settle()  # by which it would seem slower than it is
                lane.try_programs()
        events = [event for lane in self._lanes.values() for event in self._refill(lane)]
        if events:
            return events  # who begins is told before anything of it can end this process
        self._request_programs()
        self._give_turns()
        return self._end_turns()

    def _refill(self, lane: Lane) -> list[Event]:
        events: list[Event] = []
        opening: Exception | None = None
        # A new pack starts level with the others: device time is shared from now on.
        seconds = min((p.seconds for p in self._packs() if p.runs), default=0.0)
        try:
            self._check_memory(lane)
            for event in lane.refill(seconds, len(self._lanes)):  # those without work are gone
                events.append(event)
        except Exception as exc:
            opening = exc
        if opening is not None:
            events += self._fail(lane, lane.filling, opening)
        return events

    def _give_turns(self) -> None:
        """Start as many packs as may train at once, those that had the least time first."""
        ready = [
            (lane, open_pack)
            for lane in self._lanes.values()
            for open_pack in lane.packs
            if open_pack.runs and not open_pack.has_turn
        ]
        waited_for: float | None = None
        for lane, open_pack in sorted(ready, key=lambda pair: pair[1].seconds):
            if waited_for is not None and open_pack.seconds > waited_for + PATIENCE_SECONDS:
                return
            if self._may_train(lane, open_pack):
                open_pack.has_turn = True
                turn = self._crew.start(partial(open_pack.take_turn, self._rules))
                self._turns[turn] = lane, open_pack
            elif waited_for is None:
                waited_for = open_pack.seconds

    def _may_train(self, lane: Lane, open_pack: OpenPack) -> bool:
        """Whether a pack may train beside those whose turn it is."""
        if not self._turns:
            return True
        if len(self._turns) == self._crew.size or lane.needs_all_threads:
            return False
        mine = open_pack.pack.with_onednn
        return not any(
            other.needs_all_threads or {mine, its.pack.with_onednn} == {True, False}
            for other, its in self._turns.values()
        )

    def _end_turns(self) -> list[Event]:
        """Wait until a pack has had its turn; what came of it."""
        if not self._turns:
            return []
        events: list[Event] = []
        for turn in self._crew.first_done({*self._turns}):
            lane, open_pack = self._turns.pop(turn)
            open_pack.has_turn = False
            error = turn.exception()  # not raised: frames of this thread would hold the pack
            if isinstance(error, Exception):
                events += self._fail(lane, open_pack, error)
                continue
            result = turn.result()
            events += open_pack.land(result)
            if lane.wants_program:
                self._missed[lane.job] += savable_seconds(result.num_ticks, result.seconds)
        return events

    def _request_programs(self) -> None:
        """Have programs compiled that are worth it."""
        savable: dict[Job, float] = defaultdict(float)
        for lane in self._lanes.values():
            if lane.wants_program:
                savable[lane.job] += lane.savable_seconds()
        # Runs to come will be like those at hand, and who has trained for long goes on for long.
        share = 1 + sum(self._num_following.values()) / max(1, self.num_open)
        for job, seconds in savable.items():
            if (total := seconds * share + self._missed[job]) > IDLE_COMPILE_SECONDS:
                self._programs.request(job, hurry=total > COMPILE_SECONDS)

    def _packs(self) -> list[OpenPack]:
        return [open_pack for lane in self._lanes.values() for open_pack in lane.packs]

    def _check_memory(self, lane: Lane) -> None:
        """Keep packs narrow enough for the memory there is."""
        if not lane.packs:
            free = free_bytes(self._device)
            room = self._options.memory_bytes or free // self._crew.size
            while (width := lane.full_width) > 1 and width * bytes_per_slot(
                lane.full_spec, width
            ) > room:
                lane.narrow(width)
            needed = bytes_per_slot(lane.full_spec, 1)
            if lane.full_width == 1 and needed > free:
                # The system may give out memory that it has not, and kill the process later.
                raise MemoryError(
                    f"a run takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
                )

    def _fail(self, lane: Lane, open_pack: OpenPack | None, error: Exception) -> list[Event]:
        """Close a pack that failed, and say what becomes of its runs."""
        # The frames that the error passed through hold the pack: memory that the next one may
        # need, and somebody may keep the error for long.
        traceback.clear_frames(error.__traceback__)
        if error.__traceback__ is not None:
            error = error.with_traceback(error.__traceback__.tb_next)
        out_of_memory = is_out_of_memory(error)
        if out_of_memory and not isinstance(error, MemoryError):
            error = MemoryError(str(error))
        if open_pack is None:  # not even its tensors could be made
            plan = lane.plan()
            assert plan is not None, "a pack was being opened"
            if out_of_memory and plan.width > 1:
                lane.narrow(plan.width)
                return []
            lane.waiting.remove(plan.run)
            key = plan.run.key
            if out_of_memory and self._is_shared_with(None):
                return [HandedBack(key, error, 1)]
            return [Failed(key, error)]
        lane.packs = [other for other in lane.packs if other is not open_pack]
        keys = [r.key for slot, (r, _) in open_pack.runs.items() if slot not in open_pack.removed]
        width = open_pack.pack.width
        if out_of_memory:
            lane.narrow(width)
            if width == 1 and self._is_shared_with(open_pack):
                return [HandedBack(key, error, 1) for key in keys]
            if width == 1:
                return [Failed(key, error) for key in keys]
            return [HandedBack(key, error, None) for key in keys]
        if len(keys) == 1 and not open_pack.removed:
            return [Failed(keys[0], error)]
        return [HandedBack(key, error, max(1, len(keys) // 2)) for key in keys]

    def _is_shared_with(self, open_pack: OpenPack | None) -> bool:
        """Whether other packs hold memory: then nobody knows whether a run would fit alone."""
        return any(other is not open_pack and other.runs for other in self._packs())


def _read(
    checkpoint: bytes, config: RunConfig, spec: StepSpec, data: DeviceData
) -> SavedRun | None:
    """The run as its checkpoint has it; None where that is not one to go on from."""
    try:
        saved = SavedRun.read(checkpoint, config, spec, data)
    except CheckpointError as exc:
        _log.warning("a run begins anew: %s", exc)
        return None
    if saved.is_over:
        _log.warning("a run begins anew: its checkpoint is of its end")
        return None
    return saved
