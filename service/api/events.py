"""A study's changes as server-sent events.

Each event's id is the revision of its change, so a reader that comes back with `Last-Event-ID` goes
on where it was.  The store is asked in a worker thread; while the stream waits it holds no
connection to the database.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from ridgeline.service import studies, tokens
from ridgeline.service.api.auth import Caller
from ridgeline.service.api.context import Context
from ridgeline.service.errors import NotFound, Unauthenticated, Unavailable
from ridgeline.service.resources import Event

POLL_SECONDS = 0.5
HEARTBEAT_POLLS = 30
"""Polls without news before a comment shows proxies and readers that the stream lives."""

_BATCH = 500


DOCUMENTATION: dict[str, Any] = {
    "description": "the stream; the schema is that of one event",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "required": ["id", "event", "data"],
                "properties": {
                    "id": {"type": "string", "pattern": "^[0-9]+$"},
                    "event": {"enum": ["study", "trial", "run", "report", "end"]},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"type": "object"},
                    },
                },
                "additionalProperties": False,
            }
        }
    },
}


class EventStream(StreamingResponse):
    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str]) -> None:
        # Proxies such as nginx would otherwise keep events back until their buffer is full.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers)


def read(api: Context, caller: Caller, study: str, after: int) -> tuple[list[Event], bool]:
    """What came after revision `after`; the flag says that nothing will follow.

    Raises:
        Unauthenticated: the caller's token was revoked since.
        NotFound: there is no study of that name.
    """
    with api.store.reading() as tx:
        if caller.token_id is not None and tokens.is_revoked(tx, caller.token_id):
            raise Unauthenticated("this token was revoked")
        return studies.events(tx, study, after=after, limit=_BATCH)


async def stream(api: Context, caller: Caller, study: str, after: int) -> AsyncIterator[str]:
    """All events after revision `after` as they come, until the study is closed."""
    num_quiet_polls = 0
    while True:
        try:
            events, ended = await run_in_threadpool(read, api, caller, study, after)
        except (Unauthenticated, NotFound):  # NotFound: the study was deleted
            return
        except Unavailable:
            events, ended = [], False  # the database restarts, say: the next poll catches up
        for event in events:
            yield _event(event.id, event.type, event.data)
            after = event.id
        if ended:
            yield _event(after, "end", {})
            return
        if len(events) == _BATCH:
            continue
        num_quiet_polls = 0 if events else num_quiet_polls + 1
        if num_quiet_polls == HEARTBEAT_POLLS:
            num_quiet_polls = 0
            yield ": still here\n\n"
        await anyio.sleep(POLL_SECONDS)


def _event(id_: int, type_: str, data: dict[str, Any]) -> str:
    return f"id: {id_}\nevent: {type_}\ndata: {json.dumps(data)}\n\n"
