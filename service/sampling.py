"""Suggestions: computed from a snapshot outside any transaction, and derived again on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.base import Given, Suggestion
from ridgeline.search.space import Config, Space
from ridgeline.search.spec import StudySpec
from ridgeline.service.errors import NotFound
from ridgeline.service.ledger import Ledger, num_planned
from ridgeline.service.store.histories import put
from ridgeline.service.store.rows import StudyRow
from ridgeline.service.store.session import Store, Transaction

PATIENCE_SECONDS = 5.0
"""After this time a sampler is asked for no further trial."""


@dataclass(frozen=True)
class Proposal:
    """Suggestions, and what they were derived from."""

    suggestions: list[Suggestion]
    space: Space
    sampler: str
    seen_revision: int
    is_whole: bool = True
    """Whether there are as many as were asked for."""

    def first(self, count: int) -> Proposal:
        """The first `count` of the suggestions: each stands without those after it."""
        return replace(self, suggestions=self.suggestions[:count])


@dataclass(frozen=True)
class Outlook:
    """A study as one transaction saw it, and how many trials it may have added."""

    spec: StudySpec
    history: History
    revision: int
    count: int
    given: Given = field(default_factory=dict)
    sources: Sequence[History] = ()

    def propose(self) -> Proposal:
        """Suggestions for the next trials; needs no transaction.

        `count` of them, or those that `PATIENCE_SECONDS` were enough for, at least one: whoever
        asked may not want them any more after a longer time, and others wait for their turn.
        """
        until = monotonic() + PATIENCE_SECONDS
        return _derive(
            self.spec,
            self.history,
            self.revision,
            self.count,
            self.given,
            self.sources,
            is_enough=lambda: monotonic() >= until,
        )


def look(
    store: Store, tx: Transaction, study: StudyRow, count: int, *, reserve: int = 0
) -> Outlook | None:
    """What suggestions for the next `count` trials at most follow from, by `tx`, which only reads.

    None where the study must wait or is full.  `reserve` places of `max_parallel` are left free for
    others.
    """
    spec = study.spec
    count = min(count, num_allowed(tx, study, spec, reserve))
    if count <= 0:
        return None
    history = store.histories.at(study, spec, tx.trials)
    assert len(history) == study.next_number
    sources = store.sources.of(study.id, spec, tx.sources)
    return Outlook(spec, history, study.revision, count, sources=sources)


def look_for_enqueued(
    store: Store, tx: Transaction, study: StudyRow, configs: Sequence[Config]
) -> Outlook:
    """What the parameters that `configs` leave out follow from, by `tx`, which only reads.

    Those of a reproducible study see no results: which ones there are depends on timing.
    """
    spec, revision = study.spec, study.revision
    history = store.histories.at(study, spec, tx.trials)
    if spec.reproducible:
        revision = 0
        for number in range(len(history)):
            _mark_running(history, number)
    given = dict(enumerate(map(spec.space.ordered, configs), start=len(history)))
    sources = store.sources.of(study.id, spec, tx.sources)
    return Outlook(spec, history, revision, len(given), given, sources)


def accept(ledger: Ledger, proposal: Proposal) -> bool:
    """Add the proposed trials; False where something has changed meanwhile, or they are too many.

    In a `Store.turn` no other proposal takes their numbers; failures that a person retries do.
    """
    if not ledger.may_create or not is_next(ledger, proposal):
        return False
    ledger.create_trials(
        proposal.suggestions, sampler=proposal.sampler, seen_revision=proposal.seen_revision
    )
    return True


def is_next(ledger: Ledger, proposal: Proposal) -> bool:
    """Whether the numbers of the proposed trials are still the next ones, and the space is."""
    is_number_free = ledger.study.next_number == proposal.suggestions[0].number
    return is_number_free and ledger.spec.space == proposal.space


def num_allowed(tx: Transaction, study: StudyRow, spec: StudySpec, reserve: int) -> int:
    """How many trials may be created now, by budget, `max_parallel` and reproducibility."""
    if study.stopping or (study.deadline_at is not None and tx.now >= study.deadline_at):
        return 0
    allowed = min(
        num_planned(study, spec) - study.next_number,
        spec.max_parallel - reserve - study.num_open,
    )
    if spec.reproducible:
        lowest_open = tx.trials.lowest_open(study.id)
        if lowest_open is not None:
            # Trial n waits for every trial up to n - max_parallel.
            allowed = min(allowed, lowest_open + spec.max_parallel - study.next_number)
    return allowed


def rederive(tx: Transaction, study_id: int, number: int) -> Suggestion:
    """What the sampler suggests for a trial, from what it saw when the trial was created.

    The parameters that a person gave are as they were given.

    Raises:
        NotFound: there is no such trial, or no sampler was asked about it.
    """
    return seen(tx, study_id, number).propose().suggestions[0]


def seen(tx: Transaction, study_id: int, number: int) -> Outlook:
    """What the suggestion for a trial followed from.

    Raises:
        NotFound: there is no such trial, or no sampler was asked about it.
    """
    study, trial = tx.studies.get(study_id), tx.trials.find(study_id, number)
    if study is None or trial is None or trial.seen_revision is None:
        raise NotFound(f"no trial {number} of the study was chosen by a sampler")
    spec = study.spec_at(trial.created_revision)
    history = History(spec.space)
    for earlier in tx.trials.page(study_id, limit=number):
        put(history, earlier)
        finished = earlier.finished_revision
        if finished is None or finished > trial.seen_revision:
            _mark_running(history, earlier.number)
    given: Given = {}
    if trial.given is not None:
        given = {number: {name: trial.config[name] for name in trial.given}}
    elif spec.reproducible:
        history = _reproducibly_known(spec, history, number)
    sources = tx.sources.histories(study.id, spec.space)
    return Outlook(spec, history, trial.seen_revision, 1, given, sources)


def _derive(
    spec: StudySpec,
    history: History,
    revision: int,
    count: int,
    given: Given,
    sources: Sequence[History],
    *,
    is_enough: Callable[[], bool] = lambda: False,
) -> Proposal:
    sampler = sampler_for(spec.sampler.name)
    seed, direction = spec.sampler.seed, spec.objective.direction
    first = len(history)
    if given or not spec.reproducible:
        numbers = range(first, first + count)
        suggestions = sampler.suggest(
            spec.space, history, numbers, seed, direction, given, sources, is_enough=is_enough
        )
        is_whole = len(suggestions) == count
        return Proposal(suggestions, spec.space, sampler.identity, revision, is_whole)
    # Each trial sees a history of its own, see docs/decisions/0001.
    suggestions = []
    for number in range(first, first + count):
        known = _reproducibly_known(spec, history, number)
        suggestions += sampler.suggest(
            spec.space, known, [number], seed, direction, sources=sources
        )
        history.put(
            number,
            suggestions[-1].config,
            enqueued=False,
            state=TrialStatus.RUNNING,
            value=None,
        )
        if is_enough():
            break
    is_whole = len(suggestions) == count
    return Proposal(suggestions, spec.space, sampler.identity, revision, is_whole)


def _reproducibly_known(spec: StudySpec, history: History, number: int) -> History:
    """What a trial of a reproducible study may follow from."""
    known = history.copy()
    for recent in range(max(0, number - spec.max_parallel + 1), number):
        _mark_running(known, recent)
    return known


def _mark_running(history: History, number: int) -> None:
    """Show a trial as the sampler must see it: begun, its result not known."""
    history.put(
        number,
        history.config(number),
        enqueued=bool(history.enqueued[number]),
        state=TrialStatus.RUNNING,
        value=None,
    )
