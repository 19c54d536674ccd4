"""How `ridgeline serve` sets its process up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_SERVE = """
import json

import uvicorn
from threadpoolctl import threadpool_info

from ridgeline.service.cli.serving import serve


class Server(uvicorn.Server):
    def run(self, sockets):
        import scipy.linalg  # as samplers do

        print(json.dumps({one["filepath"]: one["num_threads"] for one in threadpool_info()}))
        self.started = True


uvicorn.Server = Server
serve(port=0)
"""


def test_linear_algebra_takes_one_thread_and_leaves_the_others_to_devices(tmp_path: Path) -> None:
    env = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    env["RIDGELINE_HOME"] = str(tmp_path / "home")
    ran = subprocess.run(
        [sys.executable, "-c", _SERVE], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    threads = json.loads(ran.stdout)
    assert threads, "numpy and scipy have libraries of their own"
    assert set(threads.values()) == {1}
