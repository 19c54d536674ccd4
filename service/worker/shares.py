"""Who has used a device's time, where many runs train on it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ridgeline.service.worker.messages import Key


class Shares:
    """The runs that train on a device, each with its share of the device's time.

    At any moment those that train have equal parts, so that the sum over all runs is the time in
    which any of them trained.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun: dict[Key, float] = {}
        # What a run would have by now that has trained from the first moment on.
        self._total = 0.0
        self._counted_until = clock()

    def __len__(self) -> int:
        return len(self._begun)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._begun)

    def __contains__(self, key: object) -> bool:
        return key in self._begun

    def begin(self, key: Key) -> None:
        """The run trains from now on."""
        self._count()
        self._begun[key] = self._total

    def seconds(self, key: Key) -> float:
        """The run's share up to now; 0 for one that does not train."""
        self._count()
        return self._total - self._begun[key] if key in self._begun else 0.0

    def end(self, key: Key) -> None:
        """The run trains no more, if it did."""
        self._count()
        self._begun.pop(key, None)

    def _count(self) -> None:
        now = self._clock()
        if self._begun:
            self._total += (now - self._counted_until) / len(self._begun)
        self._counted_until = now
