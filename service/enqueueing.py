"""Enqueueing trials of which a person gives some parameters, and the sampler chooses the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ridgeline.search.space import Config
from ridgeline.service import sampling, studies, trials
from ridgeline.service.errors import InvalidInput
from ridgeline.service.ledger import Ledger
from ridgeline.service.resources import Trial
from ridgeline.service.store.session import Store, Transaction

Remember = Callable[[Transaction, list[Trial]], None]
"""Stores an answer in the transaction that makes it true."""


def enqueue(
    store: Store, study: str, configs: Sequence[Config], *, remember: Remember
) -> list[Trial]:
    """As `trials.enqueue`, for configurations that may leave out parameters.

    The sampler is asked outside any transaction, as it is for trials of its own.
    """
    with store.turn(study):
        while True:
            with store.reading() as tx:
                row = studies.find(tx, study)
                trials.refuse_unfit(row, configs)
                outlook = None
                if any(row.spec.space.lacks(config) for config in configs):
                    outlook = sampling.look_for_enqueued(store, tx, row, configs)
            proposal = None if outlook is None else outlook.propose()
            if proposal is not None and not proposal.is_whole:
                num = len(proposal.suggestions)
                raise InvalidInput(
                    [
                        (
                            "configs",
                            f"the sampler has completed {num} of {len(configs)} in the time there "
                            "is; enqueue fewer at once, or leave less out",
                        )
                    ]
                )
            with store.transaction() as tx:
                if proposal is not None and not sampling.is_next(Ledger(tx, row.id), proposal):
                    continue  # a person has retried trials, which waits for no turn: look again
                found = trials.enqueue(tx, study, configs, completed=proposal)
                remember(tx, found)
                return found
