"""Idempotency-Key: a POST that is repeated has its effect once, and the same answer each time.

The answer is stored in the transaction of its effect, for the caller, method and path.  Errors are
not stored: they changed nothing, so a repetition tries again.

Two requests with one key at the same time: in one process, the second is told that the first is in
flight.  Where another process answers the first, the second fails by what the first has changed, or
by its key.  Either way the first has been committed by then, and both get its answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ridgeline.service.api.auth import Caller
from ridgeline.service.api.bodies import JsonBody
from ridgeline.service.api.context import Api, Context
from ridgeline.service.errors import InvalidInput, ServiceError
from ridgeline.service.store.session import Transaction

Remember = Callable[[Transaction, BaseModel], None]
"""Stores an answer in the transaction that makes it true."""

CheckReplay = Callable[[Transaction, Mapping[str, Any]], None]

REPLAYED = "Idempotency-Replayed"


def answer(model: BaseModel, status: int = 200) -> Response:
    return JSONResponse(model.model_dump(mode="json"), status)


@dataclass(frozen=True)
class Once:
    """Performs the effect of one request, or finds that it was performed before."""

    api: Context
    key: str | None
    method_and_path: str
    body: Any

    def perform(
        self,
        caller: Caller,
        effect: Callable[[Transaction], BaseModel],
        *,
        status: int = 200,
        before: Callable[[], None] | None = None,
        check_replay: CheckReplay = lambda _tx, _answer: None,
    ) -> Response:
        """The answer of `effect`, which runs in one transaction.

        Args:
            before: what goes before it in other transactions, and may be repeated.
            check_replay: raises where an answer given before is true no more.

        Raises:
            RequestInFlight: the first request with this key is being answered now.
            InvalidInput: the key came with another body before.
        """

        def action(remember: Remember) -> BaseModel:
            if before is not None:
                before()
            with self.api.store.transaction() as tx:
                result = effect(tx)
                remember(tx, result)
            return result

        return self.perform_action(caller, action, status=status, check_replay=check_replay)

    def perform_action(
        self,
        caller: Caller,
        action: Callable[[Remember], BaseModel],
        *,
        status: int = 200,
        check_replay: CheckReplay = lambda _tx, _answer: None,
    ) -> Response:
        """The same for an action that opens its own transactions and calls `remember` in one."""
        if self.key is None:
            return answer(action(lambda _tx, _result: None), status)
        key = self.key
        scope = _sha256(f"{caller.token_id or ''} {self.method_and_path}")
        body_sha256 = _sha256(json.dumps(self.body, sort_keys=True))

        is_remembered = False

        def remember(tx: Transaction, result: BaseModel) -> None:
            nonlocal is_remembered
            is_remembered = True
            tx.idempotency.insert(
                scope=scope,
                key=key,
                body_sha256=body_sha256,
                status=status,
                answer=result.model_dump(mode="json"),
            )

        with self.api.in_flight.hold((scope, key)):
            first = self._first_answer(scope, key)
            if first is None:
                try:
                    result = action(remember)
                except ServiceError:
                    first = self._first_answer(scope, key)
                    if first is None:
                        raise
                else:
                    # Where another process was faster, there may be nothing left to be done.
                    first = None if is_remembered else self._first_answer(scope, key)
                    if first is None:
                        return answer(result, status)
        if first["body_sha256"] != body_sha256:
            raise InvalidInput(
                [("Idempotency-Key", "came with another body before; use a new key")]
            )
        with self.api.store.reading() as tx:
            check_replay(tx, first["answer"])
        return JSONResponse(first["answer"], first["status"], {REPLAYED: "true"})

    def _first_answer(self, scope: str, key: str) -> Mapping[str, Any] | None:
        with self.api.store.reading() as tx:
            return tx.idempotency.get(scope, key)


async def _once(
    request: Request,
    api: Api,
    body: JsonBody,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="makes repeating this request safe: a repetition with the same body is "
            "answered like the first, for a day",
            min_length=1,
            max_length=200,
            pattern=r"^[\x20-\x7e]+$",
        ),
    ] = None,
) -> Once:
    return Once(api, key, f"{request.method} {request.scope['path']}", body)


Idempotent = Annotated[Once, Depends(_once)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
