"""An api that is killed as it moves comparisons on: `dying_advance.py N` dies before a commit.

It dies in the N-th transaction in which it queues a study to train a winner again.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ridgeline.service import cli, comparisons

num_left = int(sys.argv[1])
really_find = comparisons._fresh


def fresh(*args: Any, **others: Any) -> Any:
    global num_left
    found = really_find(*args, **others)
    num_left -= 1
    if num_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


comparisons._fresh = fresh
sys.argv[1:] = ["serve", *sys.argv[2:]]
cli.main()
