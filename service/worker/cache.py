"""Where a worker keeps what the next one can use again: compiled programs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ridgeline.service.files import own_folder

_log = logging.getLogger(__name__)


def cache_folder(configured: Path | None) -> Path | None:
    """The folder, made if need be; None where the user has no place for one.

    Programs in it are run, so nobody else may change it: see `own_folder`.

    Args:
        configured: None takes `ridgeline` among the user's caches.

    Raises:
        OSError: the configured folder cannot be used.
    """
    if configured is not None:
        return _usable(configured.absolute())
    try:
        return _usable(default_folder())
    except (OSError, RuntimeError) as exc:  # a user without a home, or who may not write there
        _log.info("no cache, so nothing is compiled: %s", exc)
        return None


def default_folder() -> Path:
    """The folder among the user's caches.

    Raises:
        RuntimeError: the user has no home.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "ridgeline").absolute()


def _usable(folder: Path) -> Path:
    own_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to")
    return folder
