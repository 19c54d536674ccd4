"""Settings, from the environment (prefix `RIDGELINE_`) or the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ridgeline.service.logs import LogFormat

MAX_PACK_WIDTH = 256
MAX_FUNCTION_SLOTS = 1_024
MAX_WAIT_SECONDS = 86_400
"""A day without a word from a worker or a device, after which it is surely gone."""

MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""What the path of a Unix socket may have."""


class Settings(BaseSettings):
    """Everything that can be set; docs/settings.md lists the same names."""

    model_config = SettingsConfigDict(env_prefix="RIDGELINE_", extra="ignore")

    home: Path = Field(
        Path("ridgeline-data"), description="folder of the embedded database and its files"
    )
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL; left out: SQLite in `home`. "
        "PostgreSQL: postgresql+psycopg://user:password@host/database",
    )
    data_root: Path | None = Field(
        None, description="folder whose sub-folders are data sets, by name"
    )
    artifacts: str | None = Field(
        None,
        description="where files that runs leave are kept: a folder, or a URL that fsspec knows; "
        "left out: artifacts in `home`",
    )
    host: str = Field("127.0.0.1", description="address the api binds to")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8000, description="port of the api")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host headers that are answered, separated by commas",
    )
    dashboard_socket: Path | None = Field(
        None, description="Unix socket on which optuna-dashboard listens; left out: no dashboard"
    )
    dashboard_database_url: str | None = Field(
        None,
        description="read-only URL for the dashboard; left out: the embedded database, read-only",
    )
    log_format: LogFormat = Field(
        "text", description="lines of the logs: text for people, or json, an object a line"
    )
    lease_seconds: Annotated[float, Field(gt=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = Field(
        30.0, description="a worker silent for longer loses its runs"
    )
    sync_interval_seconds: Annotated[float, Field(ge=0.01, le=5, allow_inf_nan=False)] = Field(
        0.5, validate_default=True, description="how often a worker calls when nothing happens"
    )
    max_charges: Annotated[int, Field(ge=1, le=1_000)] = Field(
        3, description="failures blamed on one run before it is given up"
    )
    max_body_bytes: Annotated[int, Field(ge=1_024, le=2**30)] = Field(
        16 * 2**20, description="largest request body"
    )
    max_artifact_bytes: Annotated[int, Field(ge=1_024, le=2**40)] = Field(
        256 * 2**20, description="largest file kept for a run"
    )
    max_open_studies: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1_000, description="unfinished studies of one token"
    )
    device_threads: Annotated[int, Field(ge=1, le=1_024)] | None = Field(
        None,
        description="threads of a CPU device, which train packs side by side; "
        "left out: one for each core",
    )
    function_slots: Annotated[int, Field(ge=0, le=MAX_FUNCTION_SLOTS)] | None = Field(
        None,
        description="functions that a worker calls at once, each in a process of its own; "
        "0: none; left out: one for each core",
    )
    pack_width: Annotated[int, Field(ge=1, le=MAX_PACK_WIDTH)] | None = Field(
        None, description="slots of every pack; left out: what suits the runs and the device"
    )
    compile: bool = Field(True, description="whether a worker may compile its programs")
    cache_dir: Path | None = Field(
        None, description="folder of compiled programs; left out: ridgeline in the user's cache"
    )

    checkpoint_seconds: Annotated[float, Field(gt=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = (
        Field(
            10.0,
            description="training between two checkpoints of a run, about what a lost worker costs",
        )
    )
    hang_seconds: Annotated[float, Field(ge=5, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = Field(
        300.0, description="a worker's device without progress for longer is taken for hung"
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, hosts: object) -> object:
        return tuple(h.strip() for h in hosts.split(",")) if isinstance(hosts, str) else hosts

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        if not host:  # to a socket it would be all addresses
            raise ValueError("must be an address, such as 127.0.0.1; 0.0.0.0 stands for all")
        try:
            host.encode("idna")
        except UnicodeError as exc:
            raise ValueError("is not an address, nor the name of a host") from exc
        return host

    @field_validator("home")
    @classmethod
    def _fits_into_a_url(cls, home: Path) -> Path:
        try:
            str(home.absolute()).encode()
        except UnicodeEncodeError as exc:
            raise ValueError("must be a path in UTF-8, since it becomes part of a URL") from exc
        return home

    @field_validator("dashboard_socket")
    @classmethod
    def _fits_into_an_address(cls, path: Path | None) -> Path | None:
        if path is not None and len(os.fsencode(path)) > MAX_SOCKET_BYTES:
            raise ValueError(f"must be a path of at most {MAX_SOCKET_BYTES} bytes, as sockets have")
        return path

    @field_validator("sync_interval_seconds")
    @classmethod
    def _well_within_the_lease(cls, seconds: float, info: ValidationInfo) -> float:
        lease_seconds = info.data.get("lease_seconds")
        if lease_seconds is not None and seconds > lease_seconds / 2:
            raise ValueError(f"must be at most half of lease_seconds, which is {lease_seconds:g}")
        return seconds

    @property
    def artifact_folder(self) -> Path | None:
        """The folder of the artifacts; None where they are at a URL."""
        if self.artifacts is None:
            return self.home / "artifacts"
        return None if "://" in self.artifacts else Path(self.artifacts)

    @property
    def resolved_database_url(self) -> str:
        """The URL of the database: the one set, or the embedded one."""
        if self.database_url is not None:
            return self.database_url
        from sqlalchemy.engine import URL  # slow to import, and most commands need no database

        path = str((self.home / "ridgeline.db").absolute())
        return URL.create("sqlite", database=path).render_as_string()
