"""Which trial of a study has won, and which are trained again: as racing, and with fresh seeds.

A trial that has ended stays as it ended.  What trains its configuration again is a trial of its
own, a *repeat*, whose runs, and so its seeds, have the next numbers: `racing` repeats are added
before the winner is told, its `confirmation` after.  All follows from the trials that have ended,
so it can be told again at any time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ridgeline.search.racing import Contender, next_round, num_more, pooled, ranked
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import OPEN_TRIAL, FailReason, TrialState

if TYPE_CHECKING:
    from ridgeline.service.store.rows import TrialRow
    from ridgeline.service.store.trials import Trials

_AT_ONCE = 100


@dataclass(frozen=True)
class Repeat:
    """A trial to be added.

    Attributes:
        number: of the trial whose configuration it trains again.
        replicates: the numbers of its runs.
    """

    number: int
    config: Config
    origin: Literal["racing", "confirmation"]
    replicates: range


@dataclass(frozen=True)
class Winner:
    """The best trial of a study.

    Attributes:
        value: the mean over all its seeds in the search, those of its race among them.
        num_seeds: of that mean.
        races: the trials that have raced for it, which are a part of the value.
        confirmation: the trial of fresh seeds; None where there is none yet.
        revision: the last one by which who has won, and by what, may have changed.
    """

    trial: TrialRow
    value: float
    num_seeds: int
    races: Sequence[TrialRow]
    confirmation: TrialRow | None
    revision: int


def winner_of(trials: Trials, study_id: int, spec: StudySpec) -> Winner | None:
    """The best complete trial as things stand; None before there is one."""
    standings = _Standings(trials, study_id, spec)
    order = ranked(standings.contenders, spec.objective.direction)
    if not order:
        return None
    first = order[0]
    assert first.value is not None
    trial = standings.firsts[first.number]
    ended = [trial, *standings.repeats]
    return Winner(
        trial,
        first.value,
        first.num_seeds,
        standings.races[first.number],
        standings.confirmations.get(first.number),
        max(one.finished_revision or 0 for one in ended),
    )


def next_repeats(trials: Trials, study_id: int, spec: StudySpec) -> list[Repeat]:
    """The repeats to add to a study whose trials have all ended; none: its winner is known.

    Those of a round of the race, else the confirmation of the winner.
    """
    if spec.racing is None and spec.fresh_seeds is None:
        return []
    standings = _Standings(trials, study_id, spec)
    direction, num_divisions = spec.objective.direction, spec.num_divisions

    def repeat(one: Contender, origin: Literal["racing", "confirmation"], *seeds: int) -> Repeat:
        config = standings.firsts[one.number].config
        runs = range(seeds[0] * num_divisions, seeds[1] * num_divisions)
        return Repeat(one.number, config, origin, runs)

    if spec.racing is not None:
        todo = next_round(standings.contenders, spec.racing, direction)
        if todo:
            return [
                repeat(one, "racing", one.num_seeds, one.num_seeds + more) for one, more in todo
            ]
    order = ranked(standings.contenders, direction)
    if spec.fresh_seeds is None or not order or order[0].number in standings.confirmations:
        return []
    first = spec.seeds_of_search
    return [repeat(order[0], "confirmation", first, first + spec.fresh_seeds)]


class _Standings:
    """The trials that may win, with the repeats there are of them.

    Attributes:
        contenders: all that have raced, and of the others as many as may lead.
        firsts: the trials of the search that contend, by number.
        races: their repeats that have ended, by that number.
        confirmations: the trials of fresh seeds, by that number.
        repeats: all that have ended.
    """

    def __init__(self, trials: Trials, study_id: int, spec: StudySpec) -> None:
        self.races: dict[int, list[TrialRow]] = defaultdict(list)
        self.confirmations: dict[int, TrialRow] = {}
        repeats = spec.racing is not None or spec.fresh_seeds is not None
        # One that was cancelled is as if it had not been: a study that goes on adds it again.
        there = [
            one
            for one in (trials.repeats(study_id) if repeats else [])
            if one.reason is not FailReason.CANCELLED
        ]
        self.repeats = [one for one in there if one.state not in OPEN_TRIAL]
        for one in there:
            assert one.repeats is not None
            if one.origin == "confirmation":
                self.confirmations[one.repeats] = one
            elif one.state not in OPEN_TRIAL:
                self.races[one.repeats].append(one)
        num_leaders = 1 if spec.racing is None else spec.racing.leaders
        raced = trials.of_numbers(study_id, list(self.races)) if self.races else {}
        self.firsts = raced | {
            one.number: one
            for one in _leading(trials, study_id, spec, num_leaders, list(raced.values()))
        }
        self.contenders = [self._contender(spec, one) for one in self.firsts.values()]

    def _contender(self, spec: StudySpec, trial: TrialRow) -> Contender:
        parts = [(trial.value, spec.replicates)]
        num_seeds = spec.replicates
        for one in self.races[trial.number]:
            assert spec.racing is not None
            more = num_more(num_seeds, spec.racing)
            value = one.value if one.state is TrialState.COMPLETE else None
            parts.append((value, more))
            num_seeds += more
        return Contender(trial.number, pooled(parts), num_seeds)


def _leading(
    trials: Trials, study_id: int, spec: StudySpec, count: int, others: Sequence[TrialRow]
) -> Iterator[TrialRow]:
    """The best complete trials of the search that have not raced, best first.

    A configuration that was tried twice, or has raced, is left out: with the same seeds it would
    come to the same.
    """
    maximize = spec.objective.direction == "maximize"
    known = {_key(one) for one in others}
    num_read = num_found = 0
    while True:
        limit = 1 if count == 1 and not others else _AT_ONCE
        page = trials.best_of_search(study_id, maximize=maximize, limit=limit, offset=num_read)
        for one in page:
            if (key := _key(one)) not in known:
                known.add(key)
                yield one
                num_found += 1
                if num_found == count:
                    return
        if len(page) < limit:
            return
        num_read += len(page)


def _key(trial: TrialRow) -> str:
    return json.dumps(trial.config, sort_keys=True)
