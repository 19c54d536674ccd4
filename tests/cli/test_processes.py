"""Children end with their parent, and end when told to.

Nobody waits for a process that is not his own child, so these tests wait for the end of a pipe that
every process of interest holds open: it comes when the last of them is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.service import processes

DEADLINE_SECONDS = 60

CHILD = r"""
import os, signal, sys
from ridgeline.service import processes
{before}
processes.watch_parent(grace_seconds={grace_seconds})
os.write(1, b"child\n")  # print would make two writes of it where nothing is buffered
while True:
    signal.pause()
"""

PARENT = """
import sys
from ridgeline.service import processes
child = processes.spawn([sys.executable, "-c", sys.argv[1]])
child.wait()
"""


def start_parent(child: str) -> subprocess.Popen[bytes]:
    """A process that has spawned `child`, once the child is there."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"child\n"
    return parent


@pytest.mark.parametrize(
    ("before", "last_words"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'tidy\\n'), sys.exit()))",
         b"tidy\n"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", b""),
    ],
    ids=["tidies up", "ignores SIGTERM"],
)  # fmt: skip
def test_a_child_ends_when_its_parent_is_killed(before: str, last_words: bytes) -> None:
    parent = start_parent(CHILD.format(before=before, grace_seconds=0.1))
    parent.kill()
    rest, _ = parent.communicate(timeout=DEADLINE_SECONDS)
    assert rest == last_words


def test_a_child_that_is_stopped_ends_when_its_parent_is_killed() -> None:
    tidies_up = "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'tidy\\n'), sys.exit()))"
    stops = "threading.Timer(0, lambda: os.kill(os.getpid(), signal.SIGSTOP)).start()"
    child = CHILD.format(before=tidies_up, grace_seconds=60).replace(
        "while True", f"import threading; {stops}\nwhile True"
    )
    parent = start_parent(child)
    (pid,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        assert parent.poll() is None
    parent.kill()
    rest, _ = parent.communicate(timeout=DEADLINE_SECONDS)
    assert rest == b"tidy\n"


def test_a_child_outlives_no_parent_that_just_returns() -> None:
    code = PARENT.replace("child.wait()", "sys.stdin.readline()")
    child = CHILD.format(before="", grace_seconds=0.1)
    parent = subprocess.Popen(
        [sys.executable, "-c", code, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"child\n"
    rest, _ = parent.communicate(b"\n", timeout=DEADLINE_SECONDS)
    assert rest == b""


def spawn(code: str) -> tuple[subprocess.Popen[bytes], int]:
    """A child that has said that it is there, and the pipe it holds."""
    reader, writer = os.pipe()
    process = processes.spawn([sys.executable, "-c", code], output=writer)
    os.close(writer)
    assert os.read(reader, 100) == b"child\n"
    return process, reader


def at_end(reader: int) -> bool:
    try:
        return os.read(reader, 100) == b""
    finally:
        os.close(reader)


def test_terminate_asks_first() -> None:
    process, reader = spawn(
        CHILD.format(
            before="signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", grace_seconds=60
        )
    )
    assert processes.terminate(process, grace_seconds=DEADLINE_SECONDS) == 7
    assert at_end(reader)
    assert processes.terminate(process, grace_seconds=0) == 7


def test_terminate_ends_what_does_not_listen_and_its_children() -> None:
    process, reader = spawn(
        CHILD.format(
            before="signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "import subprocess; subprocess.Popen(['sleep', '1000'])",
            grace_seconds=60,
        )
    )
    assert processes.terminate(process, grace_seconds=0) == -signal.SIGKILL
    assert at_end(reader)


def test_a_spawned_process_is_out_of_reach_of_ctrl_c() -> None:
    process, reader = spawn(CHILD.format(before="", grace_seconds=60))
    assert os.getpgid(process.pid) == process.pid != os.getpgrp()
    assert processes.terminate(process, grace_seconds=DEADLINE_SECONDS) == -signal.SIGTERM
    assert at_end(reader)


def test_a_worker_measures_its_device() -> None:
    env = {name: text for name, text in os.environ.items() if not name.startswith("RIDGELINE_")} | {
        "RIDGELINE_COMPILE": "false",
        "RIDGELINE_PACK_WIDTH": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline.service.cli", "worker", "--profile", "--device", "cpu:0"],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    assert done.stdout.count("batch size") == 2
    assert done.stdout.count("best eager width") == 2
    assert "against width 1" in done.stdout
