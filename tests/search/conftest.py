"""Property tests find the same examples each time, and none of them is timed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("search", deadline=None, derandomize=True, database=None)
settings.load_profile("search")
