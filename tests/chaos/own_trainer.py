"""A worker with a trainer of a campaign's own."""

from __future__ import annotations

import sys

from ridgeline.service.worker import agent
from ridgeline.service.worker.training import Backend


def work_with(backend: Backend) -> None:
    """Run `ridgeline worker`; its options follow the first argument, which the campaign reads.

    Args:
        backend: of a class that device processes can import by the name that it has here.
    """
    from ridgeline.service import cli  # which device processes need not import

    agent.__dict__["EngineBackend"] = lambda: backend
    sys.argv[1:] = ["worker", *sys.argv[2:]]
    cli.main()
