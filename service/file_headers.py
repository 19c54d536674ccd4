"""The headers of a call whose body is a file, as both of its ends write and read them."""

from __future__ import annotations

import base64

MEDIA_TYPE = "application/octet-stream"

DIGEST = "Content-Digest"
DIGEST_PATTERN = r"^sha-256=:[A-Za-z0-9+/]{43}=:$"
"""RFC 9530, and of its algorithms SHA-256 alone."""

EPOCH = "Ridgeline-Epoch"
"""After which a checkpoint was made."""


def digest_header(sha256: str) -> str:
    """The value of `Content-Digest` for a SHA-256 in hexadecimal digits."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
