"""optuna-dashboard's pages without what would be refused, and with a way to `/status`.

The dashboard has no read-only mode: it offers to create, rename and delete studies, to edit notes
and to fail trials, and says "Failed to delete study" without a reason.  Its bundle is left as it
is; its one HTML file gets a stylesheet that hides those buttons, and a link.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEAD = b"""\
<link rel="icon" href="/status/icon.svg">
<style>
  [aria-label="rename study"],
  [aria-label="delete study"],
  button:has(+ a[href$="/compare-studies"]), /* Create */
  .MuiButton-outlined.MuiButton-colorError, /* Fail Trial */
  .MuiCardContent-root > .MuiIconButton-root /* edit a note */ {
    display: none !important;
  }
  #ridgeline-status {
    position: fixed;
    z-index: 1201; /* above the bar, below dialogs */
    top: 16px;
    right: 16px;
    padding: 6px 12px;
    border-radius: 4px;
    background: #0b5cad;
    color: #fff;
    font: 14px sans-serif;
    text-decoration: none;
  }
</style>
</head>"""
_BODY = b"""\
<a id="ridgeline-status" href="/status">Status</a>
</body>"""


def adapted(app: WSGIApplication) -> WSGIApplication:
    """The dashboard `app`, whose HTML file gets what it lacks."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != "/dashboard" and not path.startswith("/dashboard/"):
            return app(environ, start_response)
        told: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            told[:] = status, headers

        # The whole file, as it is: parts, other encodings and "not modified" are of the original.
        kept = {name: value for name, value in environ.items() if name not in _OF_THE_ORIGINAL}
        page = b"".join(app({**kept, "REQUEST_METHOD": "GET"}, start))
        page = page.replace(b"</head>", _HEAD).replace(b"</body>", _BODY)
        status, headers = told
        headers = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
        start_response(status, [*headers, ("Content-Length", str(len(page)))])
        return [page] if environ["REQUEST_METHOD"] == "GET" else []

    return call


_OF_THE_ORIGINAL = frozenset(
    {"HTTP_ACCEPT_ENCODING", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"}
)
_REPLACED = frozenset({"accept-ranges", "content-length", "etag", "last-modified"})
