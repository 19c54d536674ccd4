"""A worker in a process of its own, with an api of its own; tells on standard output what happens.

Usage: python -m tests.worker.agent_process

Its first run hangs after one epoch, with a second one beside it.  It prints one line of JSON once
the first one trains, and one when the agent has ended.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from random import Random

from ridgeline.service.worker.agent import Agent, device_specs, leaving_on_signals
from tests.worker.fakes import HANG_SECONDS, FakeApi
from tests.worker.trainers import ScriptedBackend


def main() -> int:
    logging.basicConfig(level=logging.INFO)
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    api.add(2)

    def announce() -> None:
        api.wait_until(lambda: api.runs[1].epochs and api.runs[2].state == "RUNNING")
        print(json.dumps({"device_pid": int(api.runs[1].epochs[1]["pid"])}), flush=True)

    threading.Thread(target=announce, daemon=True).start()
    agent = Agent(
        api,
        name="test",
        specs=device_specs(None, ["cpu:0"], 1),
        backend=ScriptedBackend(),
        hang_seconds=HANG_SECONDS,
        function_slots=None,
        clock=time.monotonic,
        random=Random(0),
    )
    with leaving_on_signals(agent):
        status = agent.run()
    print(
        json.dumps(
            {
                "ends": [[end.run, end.outcome] for r in api.runs.values() for end in r.ends],
                "states": [run.state for run in api.runs.values()],
                "worker": api.workers["w0"].state,
                "torch": "torch" in sys.modules,
            }
        ),
        flush=True,
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
