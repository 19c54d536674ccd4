"""`make demo`: a grid, a random and a TPE search on handwritten digits, from start to finish.

Starts a service of its own in a new folder under demo-data/, posts the studies of this folder,
shows their progress and their best trials, and stops the service again.  Exit status: 0 when all
studies are COMPLETED, 1 otherwise.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from sqlalchemy.engine import make_url

from ridgeline import Client, ClientError
from ridgeline.service import processes
from ridgeline.service.cli import tables
from ridgeline.service.cli.environment import own_command
from ridgeline.service.cli.follow import follow
from ridgeline.service.cli.sockets import free_port
from ridgeline.service.cli.study_file import load_study
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import Study
from ridgeline.service.settings import Settings
from ridgeline.service.store.engine import read_only

START_SECONDS = 120.0
STOP_SECONDS = 40.0
SPECS = ("grid.yaml", "random.yaml", "tpe.yaml")


def main() -> int:
    console = Console(highlight=False, soft_wrap=True)
    folder = Path("demo-data")
    folder.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y%m%d-%H%M%S}-", dir=folder))
    console.print(f"Starting the service in {home} ...")
    with running_service(home) as client:
        console.print(f"It runs at {client.url}; its dashboard is at {client.url}/dashboard")
        specs = [load_study(Path(__file__).with_name(name)) for name in SPECS]
        names = [client.create_study(spec).name for spec in specs]
        began = time.monotonic()
        studies = follow(client, names, console)
        num_trials = sum(tables.num_done(study) for study in studies.values())
        console.print(f"{num_trials} trials in {time.monotonic() - began:.0f} s.\n")
        for study in studies.values():
            print_best(console, client, study)
    print_next_steps(console, home, names[-1])
    return 0 if all(study.state is StudyState.COMPLETED for study in studies.values()) else 1


@contextmanager
def running_service(home: Path) -> Iterator[Client]:
    """`ridgeline up` on a free port, for the time of the block."""
    log = home / "up.log"
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-P", "-m", "ridgeline.service.cli", "up", "--die-with-parent"]
    # Whatever the surroundings say of databases and tokens is not meant for the demo.
    env = {name: text for name, text in os.environ.items() if not name.startswith("RIDGELINE_")}
    with log.open("wb") as output:
        service = processes.spawn(
            [*command, "--home", str(home), "--port", str(port)], env=env, output=output
        )
    try:
        with Client(url) as client:
            wait_until_ready(client, service, log)
            try:
                yield client
            except ClientError as exc:
                if service.poll() is None:
                    raise
                sys.exit(f"{exc}: it has ended: {log.read_text(errors='replace')}")
    finally:
        processes.terminate(service, grace_seconds=STOP_SECONDS)


def wait_until_ready(client: Client, service: subprocess.Popen[bytes], log: Path) -> None:
    gives_up_at = time.monotonic() + START_SECONDS
    while not (client.is_ready() and any(worker.state == "LIVE" for worker in client.workers())):
        if service.poll() is not None or time.monotonic() > gives_up_at:
            sys.exit(f"The service did not start: {log.read_text(errors='replace')}")
        time.sleep(0.1)


def print_best(console: Console, client: Client, study: Study) -> None:
    """A study's best trial; its test accuracy played no part in choosing it."""
    console.print(f"[bold]{study.name}[/] is {study.state}, sampler {study.spec.sampler.name}")
    if study.best is None:
        console.print(f"  no trial is complete: {study.reason or 'see its log'}\n")
        return
    trial = client.best(study.name)
    config = "  ".join(f"{key}={tables.show_value(value)}" for key, value in trial.config.items())
    test = tables.test_metrics(trial)["test_accuracy"]
    console.print(f"  best trial {trial.number} of {study.num_trials}: {config}")
    console.print(f"  validation accuracy {trial.value:.4f}, test accuracy {test:.4f}\n")


def print_next_steps(console: Console, home: Path, name: str) -> None:
    url = make_url(Settings(home=home, database_url=None).resolved_database_url)
    lines = [
        "The service has stopped; its history stays. To look at it in the dashboard:",
        f"  {own_command()} up --home {shlex.quote(str(home))}",
        "  and open http://127.0.0.1:8000/dashboard",
        "To read it in Python:",
        "  import optuna",
        f'  study = optuna.load_study(study_name="{name}",',
        f'                            storage="{read_only(url).render_as_string()}")',
        "  print(study.best_value, study.best_params)",
    ]
    console.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClientError as exc:
        sys.exit(str(exc))
    except KeyboardInterrupt:
        sys.exit(130)
