"""A program that trains an external study: `looping_program.py URL STUDY [NUM_TRIALS]`.

It prints the number of each trial that it has completed.  After NUM_TRIALS of them it prints the
next one's as `holds N`, and never ends that one.
"""

from __future__ import annotations

import sys
import threading

from ridgeline.service.client import Client

LEASE_SECONDS = 2.0

url, study, *limit = sys.argv[1:]
with Client(url) as client:
    for num_before, trial in enumerate(client.external(study, lease_seconds=LEASE_SECONDS)):
        trial.report(1, {"error": int(trial.config["depth"])})
        if [str(num_before)] == limit:
            print(f"holds {trial.number}", flush=True)
            threading.Event().wait()
        trial.complete()
        print(trial.number, flush=True)
