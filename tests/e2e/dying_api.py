"""An api that is killed between commit and answer: `dying_api.py N` dies in its N-th fruitful sync.

The sync that kills it has handed out runs or taken an end, and the worker never hears of it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ridgeline.service import cli, workers
from ridgeline.service.protocol import SyncRequest, SyncResponse

num_left = int(sys.argv[1])
really_sync = workers.sync


def sync(store: Any, worker_id: str, request: SyncRequest, **others: Any) -> SyncResponse:
    global num_left
    response = really_sync(store, worker_id, request, **others)
    if response.start or request.ended:
        num_left -= 1
        if num_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return response


workers.sync = sync
sys.argv[1:] = ["serve", *sys.argv[2:]]
cli.main()
