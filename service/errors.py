"""Errors that a person can do something about; the api turns each into problem+json.

ServiceError
├── InvalidInput       422  a field is wrong; carries (field, reason) pairs
├── NotFound           404
├── Conflict           409  the thing is not in a state that allows this
│   ├── StaleAttempt   409  somebody else holds or ended this run by now
│   └── RequestInFlight 409 a request with the same Idempotency-Key is being answered
├── Unauthenticated    401
├── Forbidden          403
├── PreconditionFailed 412  it has changed since the caller looked at it
├── PreconditionRequired 428 the caller must say which state it has looked at
├── LimitExceeded      429  more studies than one token may have, say
└── Unavailable        503  the database is busy or full; trying again may help
"""

from __future__ import annotations

from ridgeline.search.problems import told


class ServiceError(Exception):
    """Base of all; `status` is the HTTP status that tells it."""

    status = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(ServiceError):
    """One or more fields cannot be used; `problems` are (field path, reason) pairs."""

    status = 422

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(told(problems))
        self.problems = problems


class NotFound(ServiceError):
    status = 404


class Conflict(ServiceError):
    status = 409


class StaleAttempt(Conflict):
    pass


class RequestInFlight(Conflict):
    pass


class Unauthenticated(ServiceError):
    status = 401


class Forbidden(ServiceError):
    status = 403


class PreconditionFailed(ServiceError):
    status = 412


class PreconditionRequired(ServiceError):
    status = 428


class LimitExceeded(ServiceError):
    status = 429


class Unavailable(ServiceError):
    status = 503
