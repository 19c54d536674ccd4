"""What a person gets wrong is told on one line of standard error, with an exit status above 0."""

from __future__ import annotations

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ridgeline.service.cli.problems import Problem
from ridgeline.service.cli.up import short_folder
from ridgeline.service.logs import TextLines
from ridgeline.service.settings import MAX_SOCKET_BYTES
from tests.cli.conftest import Ridgeline


def told(ridgeline: Ridgeline, *args: str, status: int = 2, **settings: str) -> str:
    """The one line that a wrong command line gets."""
    result = ridgeline(*args, **settings)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("ridgeline: ")
    return line.removeprefix("ridgeline: ")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("nonsense", "No such command 'nonsense' (see ridgeline --help)"),
        ("exprot s", "No such command 'exprot'. Did you mean 'export'? (see ridgeline --help)"),
        ("show", "Missing argument 'NAME' (see ridgeline show --help)"),
        ("up --prot 1", "No such option: --prot"),
        ("up --port many", "Invalid value for '--port'"),
        ("serve --port 65536", "Invalid value for '--port'"),
        ("token", "Missing command (see ridgeline token --help)"),
        ("token create me", "Missing option '--scope' (see ridgeline token create --help)"),
        ("token create me --scope root", "--scope: must be 'read', 'write', 'worker' or 'admin'"),
        ("run absent.yaml", "cannot read absent.yaml: No such file or directory"),
    ],
)
def test_the_command_line(command: str, line: str, ridgeline: Ridgeline) -> None:
    assert told(ridgeline, *command.split()).startswith(line)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"port": "many"}, "RIDGELINE_PORT: must be a valid integer"),
        ({"lease_seconds": "0"}, "RIDGELINE_LEASE_SECONDS: must be greater than 0"),
        ({"lease_seconds": "nan"}, "RIDGELINE_LEASE_SECONDS: must be a finite number"),
        ({"lease_seconds": "1e999"}, "RIDGELINE_LEASE_SECONDS: must be a finite number"),
        ({"lease_seconds": "1e9"}, "RIDGELINE_LEASE_SECONDS: must be less than or equal to 86400"),
        ({"sync_interval_seconds": "nan"}, "RIDGELINE_SYNC_INTERVAL_SECONDS: must be a finite"),
        ({"hang_seconds": "inf"}, "RIDGELINE_HANG_SECONDS: must be a finite number"),
        ({"max_charges": "1e999"}, "RIDGELINE_MAX_CHARGES: must be"),
        ({"host": ""}, "RIDGELINE_HOST: must be an address, such as 127.0.0.1"),
        ({"host": "a..b"}, "RIDGELINE_HOST: is not an address, nor the name of a host"),
        (
            {"lease_seconds": "0.75"},
            "RIDGELINE_SYNC_INTERVAL_SECONDS: must be at most half of lease_seconds, which is 0.75",
        ),
        ({"database_url": "nonsense"}, "RIDGELINE_DATABASE_URL: must be like sqlite:///file"),
        ({"database_url": "mysql://a/b"}, "RIDGELINE_DATABASE_URL: must be like sqlite:///file"),
        ({"database_url": "sqlite://"}, "RIDGELINE_DATABASE_URL: must be like sqlite:///file"),
        (
            {"database_url": "postgresql+psycopg://a:b@host:port/c"},
            "RIDGELINE_DATABASE_URL: must be like sqlite:///file",
        ),
        ({"data_root": "absent"}, "--data-root or RIDGELINE_DATA_ROOT: absent is no folder"),
        ({"artifacts": "nonsense://x"}, "RIDGELINE_ARTIFACTS: Protocol not known: nonsense"),
        ({"artifacts": "s3://x"}, "RIDGELINE_ARTIFACTS: Install s3fs to access S3; pip install "),
        (
            {"dashboard_socket": "x" * 120},
            f"RIDGELINE_DASHBOARD_SOCKET: must be a path of at most {MAX_SOCKET_BYTES} bytes",
        ),
        ({"host": "0.0.0.0"}, "refusing to listen on 0.0.0.0 without tokens"),
    ],
)
def test_settings(settings: dict[str, str], line: str, ridgeline: Ridgeline) -> None:
    assert told(ridgeline, "serve", status=2, **settings).startswith(line)


def test_a_database_that_cannot_be_reached(ridgeline: Ridgeline) -> None:
    url = "postgresql+psycopg://somebody:hush@127.0.0.1:1/none"
    line = told(ridgeline, "migrate", status=1, database_url=url)
    assert line.startswith("the database cannot be used: connection failed")
    assert "hush" not in line


def test_a_database_that_is_none(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database, but long enough to be read as the head of one" * 9)
    line = told(ridgeline, "migrate", status=1, database_url=f"sqlite:///{tmp_path}/x.db")
    assert line.startswith(f"the database {tmp_path}/x.db is damaged (file is not a database). ")


def test_a_folder_that_cannot_be_made(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    assert "Not a directory" in told(ridgeline, "migrate", status=1, home=home)
    assert "Not a directory" in told(ridgeline, "up", "--home", home, status=1)


def test_a_folder_for_files_of_runs_that_others_may_change(
    ridgeline: Ridgeline, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    line = told(ridgeline, "serve", status=1, artifacts=str(tmp_path / "shared"))
    assert line.startswith(f"cannot keep files of runs in {tmp_path}/shared: ")


@pytest.mark.parametrize("command", ["up", "serve", "migrate", "token create me --scope read"])
def test_a_home_that_others_may_change(command: str, ridgeline: Ridgeline, tmp_path: Path) -> None:
    shared, home = tmp_path / "shared", tmp_path / "shared" / "home"
    home.mkdir(parents=True)
    shared.chmod(0o777)
    line = told(ridgeline, *command.split(), status=1, home=str(home))
    assert line.endswith(f"{home}: others may write to {shared}")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "name"), [("up", "up.lock"), ("migrate", "ridgeline.db.migrate")]
)
def test_a_lock_that_is_a_link(
    command: str, name: str, ridgeline: Ridgeline, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / name).symlink_to("precious")
    line = told(ridgeline, command, status=1, home=str(tmp_path))
    assert line.endswith(f"{tmp_path / name} is a link")
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_dashboard_whose_socket_others_may_replace(ridgeline: Ridgeline, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    path = shared / "socket"
    line = told(ridgeline, "serve", status=1, dashboard_socket=str(path))
    assert line == f"cannot reach the dashboard at {path}: others may write to {shared}"


def test_a_temporary_folder_that_is_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90) / ("y" * 80)
    deep.mkdir(parents=True)
    assert short_folder([deep, tmp_path / "absent", Path("/tmp")]) == Path("/tmp")
    with pytest.raises(Problem, match=f"set TMPDIR to a shorter path than {deep}"):
        short_folder([deep])


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_port_that_is_taken(command: str, ridgeline: Ridgeline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = told(ridgeline, command, "--port", port, status=1)
    assert (
        line
        == f"cannot listen on 127.0.0.1 port {port} (--port takes another): Address already in use"
    )


def test_a_failed_up_leaves_no_new_folder(ridgeline: Ridgeline, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told(ridgeline, "up", "--port", str(taken.getsockname()[1]), status=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "cancel", "export"])
def test_a_name_that_no_study_can_have(command: str, ridgeline: Ridgeline) -> None:
    assert told(ridgeline, command, "my study", status=1) == "there is no study named 'my study'"


def test_a_home_that_is_in_use(
    ridgeline: Ridgeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ridgeline.service.cli.up import sole_user

    with sole_user(tmp_path):
        line = told(ridgeline, "up", "--home", str(tmp_path), status=1)
    assert line.startswith(f"ridgeline up runs in {tmp_path} already")


@pytest.mark.parametrize("command", ["studies", "show s", "cancel s", "export s"])
def test_a_service_that_is_not_there(
    command: str, ridgeline: Ridgeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.connection.time.sleep", lambda _seconds: None)
    line = told(ridgeline, *command.split(), status=1, url="http://127.0.0.1:1")
    assert line.startswith("cannot reach http://127.0.0.1:1: ")
    assert line.endswith("is the service running?")


class Refusing(BaseHTTPRequestHandler):
    """Takes nobody's token."""

    def do_GET(self) -> None:
        problem = json.dumps(
            {"title": "Unauthenticated", "detail": "a token is needed", "status": 401}
        )
        self.send_response(401)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(problem)))
        self.end_headers()
        self.wfile.write(problem.encode())

    def log_message(self, *_: object) -> None: ...


def test_a_refused_token_says_where_the_token_comes_from(ridgeline: Ridgeline) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        line = told(ridgeline, "studies", status=1, url=f"http://127.0.0.1:{server.server_port}")
    assert line == (
        "a token is needed (HTTP 401); RIDGELINE_TOKEN or RIDGELINE_TOKEN_FILE gives the token"
    )


def test_what_is_no_url_and_no_token(ridgeline: Ridgeline) -> None:
    for command in ("studies", "worker"):
        for url in ("localhost:8000", "http://[", "http://host:99999"):
            line = told(ridgeline, command, url=url)
            assert line == f"RIDGELINE_URL: {url!r} is not a URL such as http://127.0.0.1:8000"
    line = told(ridgeline, "studies", url="http://127.0.0.1:8000/v1")
    assert line.startswith("RIDGELINE_URL: leave the path out of 'http://127.0.0.1:8000/v1'")
    line = told(ridgeline, "studies", token="rl_ä")
    assert line == "RIDGELINE_TOKEN: the token has characters that no token has"
    line = told(ridgeline, "studies", token_file="absent")
    assert line == "cannot read RIDGELINE_TOKEN_FILE absent: No such file or directory"


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", "http://ridgeline.invalid:8000"),
        ("SSL_CERT_FILE", "/absent.pem", "https://ridgeline.invalid"),
        ("SSL_CERT_DIR", "/absent", "https://ridgeline.invalid"),
        ("SSL_CERT_DIR", "/proc/self/fd", "https://ridgeline.invalid"),
    ],
)
def test_a_variable_of_the_network_is_named(
    variable: str,
    value: str,
    url: str,
    ridgeline: Ridgeline,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)  # it goes before SSL_CERT_DIR
    monkeypatch.setenv(variable, value)
    assert told(ridgeline, "studies", url=url).startswith(f"{variable}: ")
    assert ridgeline("worker", url=url).exit_code == 2
    assert caplog.messages[-1].startswith(f"{variable}: ")


def test_a_study_file_with_two_problems_has_two_lines(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: s\nbudget: {trials: 0}\nfoo: 1\n")
    result = ridgeline("run", "s.yaml")
    assert result.exit_code == 2
    assert "ridgeline: s.yaml:3: foo: is not a field here" in result.stderr.splitlines()


def test_why_a_worker_ends_is_told_without_names_of_classes() -> None:
    text = "cpu:7 cannot be used: there is no device cpu:7 here"
    record = logging.LogRecord(
        "ridgeline.service.worker.agent", logging.CRITICAL, "", 1, text, None, None
    )
    told = TextLines().format(record)
    assert told == "ridgeline: cpu:7 cannot be used: there is no device cpu:7 here"


def test_help_and_version_are_no_errors(ridgeline: Ridgeline) -> None:
    for args in ([], ["--help"], ["-h"], ["up", "-h"], ["token", "--help"]):
        result = ridgeline(*args)
        assert result.exit_code == 0
        assert "Usage" in result.stdout
        assert "<bool>" not in result.stdout
        assert result.stderr == ""
    assert ridgeline("--version").stdout.startswith("ridgeline 0.")
