"""Seeds derived from seeds: every random number of a study follows from the one in its spec."""

from __future__ import annotations

from hashlib import blake2b

_SEPARATOR = "\x1f"  # never part of a name; see `ridgeline.search.fields`


def derive(*parts: int | str) -> int:
    """A seed for the thing that `parts` name: uniform over [0, 2**53), the same everywhere.

    53 bits stay exact in JSON readers and in float64.
    """
    assert not any(_SEPARATOR in part for part in parts if isinstance(part, str))
    text = _SEPARATOR.join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 11
