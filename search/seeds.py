"""Seeds derived from seeds: every random number of a study follows from the one in its spec."""

from __future__ import annotations

import json
from hashlib import blake2b


def derive(*parts: int | str) -> int:
    """A seed for the thing that `parts` name: uniform over [0, 2**53), the same everywhere.

    53 bits stay exact in JSON readers and in float64.
    """
    text = json.dumps(parts)  # keeps 1 and "1" apart, and ("a", "b") from any one text
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 11
