"""Where a worker keeps what the next one can use again: compiled programs."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

_log = logging.getLogger(__name__)


def cache_folder(configured: Path | None) -> Path | None:
    """The folder, made if need be; None where the user has no place for one.

    Programs in it are run, so it belongs to this user, and nobody else may write there.

    Args:
        configured: None takes `ridgeline` among the user's caches.

    Raises:
        OSError: the configured folder cannot be used.
    """
    if configured is not None:
        return _usable(configured.absolute())
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return _usable(Path(caches, "ridgeline").absolute())
    except (OSError, RuntimeError) as exc:  # a user without a home, or who may not write there
        _log.info("no cache, so nothing is compiled: %s", exc)
        return None


def _usable(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write to {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to")
    return folder
