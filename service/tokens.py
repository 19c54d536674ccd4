"""Access tokens: `rl_<id>_<secret>`, of which the database keeps only the SHA-256 of the secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ridgeline.service.errors import InvalidInput, NotFound, Unauthenticated
from ridgeline.service.resources import Scope, TokenInfo
from ridgeline.service.store.session import Transaction

SCOPES: tuple[Scope, ...] = get_args(Scope)

_TOKEN = re.compile(r"rl_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_NO_SECRET = "0" * 64
"""Compared with where there is no such token, so that both cases take the same time."""


def create(
    tx: Transaction, name: str, scopes: Iterable[str], *, note: str | None = None
) -> tuple[TokenInfo, str]:
    """A new token and its text, which nobody can read again later.

    Raises:
        InvalidInput: there are no scopes, or one that does not exist.
    """
    wanted = set(scopes)
    unknown = sorted(wanted.difference(SCOPES))
    if unknown or not wanted:
        given = f"{', '.join(unknown)} is not" if unknown else "must be"
        raise InvalidInput([("scopes", f"{given} one or more of {', '.join(SCOPES)}")])
    token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    # Plain SHA-256 is enough: 256 random bits leave nothing for a dictionary to guess.
    tx.tokens.insert(
        id=token_id,
        name=name,
        secret_sha256=_digest(secret),
        scopes=[scope for scope in SCOPES if scope in wanted],
        note=note,
    )
    return _find(tx, token_id), f"rl_{token_id}_{secret}"


def authenticate(tx: Transaction, text: str) -> TokenInfo:
    """The token that `text` is.

    Raises:
        Unauthenticated: it is none, or it was revoked.
    """
    match = _TOKEN.fullmatch(text)
    row = tx.tokens.get(match[1]) if match else None
    secret = match[2] if match else ""
    expected = _NO_SECRET if row is None else row["secret_sha256"]
    if not hmac.compare_digest(_digest(secret), expected) or row is None:
        raise Unauthenticated("this is not a valid token")
    if row["revoked_at"] is not None:
        raise Unauthenticated("this token was revoked")
    return _info(row)


def is_revoked(tx: Transaction, token_id: str) -> bool:
    return _find(tx, token_id).revoked_at is not None


def revoke(tx: Transaction, token_id: str) -> TokenInfo:
    """Make a token worthless from the next request on; revoking it again changes nothing.

    Raises:
        NotFound: there is no such token.
    """
    tx.tokens.revoke(token_id)
    return _find(tx, token_id)


def list_all(tx: Transaction) -> list[TokenInfo]:
    """All tokens, the revoked ones too, oldest first."""
    return [_info(row) for row in tx.tokens.all()]


def any_exists(tx: Transaction) -> bool:
    """Whether a token was ever created, be it revoked by now: authentication is on from then."""
    return tx.tokens.count() > 0


def _find(tx: Transaction, token_id: str) -> TokenInfo:
    row = tx.tokens.get(token_id)
    if row is None:
        raise NotFound(f"there is no token {token_id}")
    return _info(row)


def _info(row: Mapping[Any, Any]) -> TokenInfo:
    return TokenInfo(
        id=row["id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        note=row["note"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
