"""All that trains on one device: runs wait in lanes, and take a slot the moment one is free.

The device's time is shared fairly among lanes.  Nothing here knows of studies, processes or the
network.
"""

from __future__ import annotations

import traceback
from collections.abc import Hashable

import torch

from search.engine.admission import MAX_WIDTH, Widths, free_bytes, is_out_of_memory
from search.engine.config import ModelShape, RunConfig
from search.engine.data import DeviceData
from search.engine.lane import Lane, LaneOptions, OpenPack, Waiting
from search.engine.memory import bytes_per_slot
from search.engine.programs import Programs
from search.engine.pruning import PruningRules
from search.engine.spec import StepSpec
from search.events import Event, Failed, HandedBack


class Lanes:
    """The runs of one device."""

    def __init__(self, device: torch.device, options: LaneOptions) -> None:
        self._device, self._options = device, options
        self._programs = Programs(options.cache if options.compile else None)
        self._lanes: dict[Hashable, Lane] = {}
        self._rules: dict[str, PruningRules] = {}
        self._widest: dict[StepSpec, int] = {}
        self._widths = Widths(self._programs.folder)

    @property
    def num_slots(self) -> int:
        """How many runs to keep at hand: as many as the widest pack has slots."""
        return self._options.width or MAX_WIDTH.get(self._device.type, 1)

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
        shape: ModelShape,
        data: DeviceData,
        *,
        group: str | None = None,
        pinned: bool = False,
    ) -> None:
        """Have a run wait for a slot.

        Args:
            key: names the run in every event.
            group: whose pruning rules it goes by.
            pinned: by the same program whatever else waits and whatever has been compiled.

        Raises:
            ValueError: where the shape's features or classes are not the data's.
        """
        data.check(shape)
        dtype = str(data.dtype).removeprefix("torch.")
        spec = StepSpec.of(config, shape, data.train.num_samples, dtype)
        lane_key = (spec, id(data), pinned)
        if lane_key not in self._lanes:
            lane = self._lanes[lane_key] = Lane(
                spec,
                data,
                self._options,
                self._programs,
                widest=self._widest,
                widths=self._widths,
                pinned=pinned,
            )
            # It starts level with the others: device time is shared from now on.
            busy = [other.seconds for other in self._lanes.values() if other.has_work]
            lane.seconds = min(busy, default=0.0)
        self._lanes[lane_key].add(Waiting(key, config, group))

    def remove(self, key: Hashable) -> bool:
        """Take a run out at once; False where there is none of that key."""
        return any(lane.remove(key) for lane in self._lanes.values())

    def set_rules(self, group: str, rules: PruningRules) -> None:
        """Prune the runs of a group by these rules from their next epochs on."""
        self._rules[group] = rules

    def advance(self) -> list[Event]:
        """Train for a moment; what is to be told, in the order in which it came about."""
        # However the last run of a lane went, the lane goes with it, and lets go of its data.
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.has_work}
        if not self._lanes:
            return []
        lane = min(self._lanes.values(), key=lambda lane: lane.seconds)
        events: list[Event] = []
        opening: Exception | None = None
        try:
            self._check_memory(lane)
            for event in lane.refill():
                events.append(event)
        except Exception as exc:
            opening = exc
        if opening is not None:
            events += self._fail(lane, lane.filling, opening)
        if events:
            return events  # who begins is told before anything of it can end this process
        for open_pack in list(lane.packs):
            try:
                for event in lane.train(open_pack, self._rules):
                    events.append(event)
            except Exception as exc:
                events += self._fail(lane, open_pack, exc)
        return events

    def _check_memory(self, lane: Lane) -> None:
        """Keep packs narrow enough for the memory there is."""
        if not lane.packs:
            room = self._options.memory_bytes or free_bytes(self._device)
            while (width := lane.full_width) > 1 and width * bytes_per_slot(
                lane.spec, width
            ) > room:
                lane.narrow(width)

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
            _, width = lane.choose()
            if out_of_memory and width > 1:
                lane.narrow(width)
                return []
            key = lane.waiting.popleft().key
            if out_of_memory and self._is_shared_with(None):
                return [HandedBack(key, error, 1)]
            return [Failed(key, error)]
        lane.packs = [other for other in lane.packs if other is not open_pack]
        keys = [run.key for run, _ in open_pack.runs.values()]
        width = open_pack.pack.width
        if out_of_memory:
            lane.narrow(width)
            if width == 1 and self._is_shared_with(open_pack):
                return [HandedBack(key, error, 1) for key in keys]
            if width == 1:
                return [Failed(key, error) for key in keys]
            return [HandedBack(key, error, None) for key in keys]
        if len(keys) == 1:
            return [Failed(keys[0], error)]
        return [HandedBack(key, error, len(keys) // 2) for key in keys]

    def _is_shared_with(self, open_pack: OpenPack | None) -> bool:
        """Whether other packs hold memory: then nobody knows whether a run would fit alone."""
        packs = [other for lane in self._lanes.values() for other in lane.packs]
        return any(other is not open_pack and other.runs for other in packs)
