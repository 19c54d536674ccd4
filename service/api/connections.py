"""The api's connections: uvicorn's, but none is kept for a request that does not arrive.

uvicorn closes connections that are idle after an answer.  It would wait without end for the first
request, and for the rest of a head that has begun; for bodies see `ridgeline.service.api.bodies`.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ridgeline.service.api.problems import problem_response

HEAD_SECONDS = 10.0
"""In which the request line and the headers of a request must arrive."""


class Connection(H11Protocol):
    """One connection, for `uvicorn.Config(http=Connection)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def _should_upgrade(self) -> bool:
        return False  # no other protocol is spoken here; HTTP lets a server go on without

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1")

    def _time_head(self) -> None:
        """Have a time limit exactly while a head is awaited; no part of it begins the time anew."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        detail = f"the request's head did not arrive within {HEAD_SECONDS:g} seconds"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer with a problem, unless an answer is on its way, and close the connection."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            problem = problem_response(status, detail, headers={"Connection": "close"})
            for event in (
                h11.Response(
                    status_code=status, headers=problem.raw_headers, reason=status.phrase.encode()
                ),
                h11.Data(data=bytes(problem.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the app may still answer has nowhere to go
        self.transport.close()
