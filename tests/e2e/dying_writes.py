"""An api that is killed in a write with an Idempotency-Key: `dying_writes.py FILE`.

The file holds `before` or `after` its commit; the api removes it as it dies, and lives without it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ridgeline.service import cli
from ridgeline.service.store.idempotency import IdempotencyKeys
from ridgeline.service.store.session import Store, Transaction

armed = Path(sys.argv[1])
of_thread = threading.local()  # whether its transaction has stored an answer
really_insert = IdempotencyKeys.insert
really_transact = Store.transaction


def die_if(when: str) -> None:
    if armed.exists() and armed.read_text() == when:
        armed.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def insert(keys: IdempotencyKeys, **answer: Any) -> None:
    really_insert(keys, **answer)
    of_thread.has_answered = True
    die_if("before")


@contextmanager
def transaction(store: Store) -> Iterator[Transaction]:
    of_thread.has_answered = False
    with really_transact(store) as tx:
        yield tx
    if of_thread.has_answered:
        die_if("after")


IdempotencyKeys.insert = insert  # type: ignore[assignment, method-assign]
Store.transaction = transaction  # type: ignore[assignment, method-assign]
sys.argv[1:] = ["serve", *sys.argv[2:]]
cli.main()
