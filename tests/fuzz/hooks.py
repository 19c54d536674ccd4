"""Rules of the API that its document cannot tell, for schemathesis to keep."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from typing import Any

import schemathesis
from schemathesis.transport.serialization import Binary

from ridgeline.search.fields import MAX_INT

_KEY = "Idempotency-Key"
_DIGEST = "content-digest"
_FORM = re.compile("sha-256=:[A-Za-z0-9+/]{43}=:")
_numbers = itertools.count()


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Whole numbers end at 2**53; beyond, a number is written with an exponent."""
    if isinstance(body, dict):
        return {name: map_body(context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, value) for value in body]
    # 2**53 + 1 would be rounded to 2**53, which is allowed.
    if type(body) is int and MAX_INT + 1 < abs(body) < 1e300:
        return float(body)
    return body


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """A key that comes with another body is refused, so each comes once.

    And a digest that fits the form fits the body, or nearly all files would be refused.
    """
    key = case.headers.get(_KEY) if case.headers else None
    if isinstance(key, str) and 0 < len(key) <= 100:
        case.headers[_KEY] = f"{key}{next(_numbers)}"
    digest = case.headers.get(_DIGEST) if case.headers else None
    body = case.body.data if isinstance(case.body, Binary) else case.body
    if isinstance(digest, str) and _FORM.fullmatch(digest) and isinstance(body, bytes):
        value = base64.b64encode(hashlib.sha256(body).digest()).decode()
        case.headers[_DIGEST] = f"sha-256=:{value}:"
