"""An api that is killed at a commit: `dying_api.py transaction|operation before|after N`.

It dies before or after the commit of its N-th transaction that writes, or of its N-th operation
with an Idempotency-Key; after it, nobody has got the answer yet.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ridgeline.service import cli
from ridgeline.service.api.idempotency import Once, Remember
from ridgeline.service.store.session import Store, Transaction

subject, point, num_left = sys.argv[1], sys.argv[2], int(sys.argv[3])


def die_if_due() -> None:
    global num_left
    num_left -= 1
    if num_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


really_transact, really_perform = Store.transaction, Once.perform_action


@contextmanager
def transaction(self: Store) -> Iterator[Transaction]:
    with really_transact(self) as tx:
        yield tx
        if point == "before":
            die_if_due()
    if point == "after":
        die_if_due()


def perform_action(self: Once, caller: Any, action: Any, **others: Any) -> Any:
    def dying(remember: Remember) -> Any:
        def remember_and_die(tx: Transaction, result: Any) -> None:
            remember(tx, result)
            if point == "before":
                die_if_due()

        result = action(remember_and_die)
        if point == "after":
            die_if_due()
        return result

    return really_perform(self, caller, dying, **others)


if subject == "transaction":
    Store.transaction = transaction  # type: ignore[method-assign]
else:
    Once.perform_action = perform_action  # type: ignore[method-assign]
sys.argv[1:] = ["serve", *sys.argv[4:]]
cli.main()
