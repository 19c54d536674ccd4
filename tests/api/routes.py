"""The routes of an app, listed from the app itself."""

from __future__ import annotations

import re

import httpx
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts


def routes_of(app: FastAPI) -> set[str]:
    """Every route, as `GET /path/{parameter}`; those hidden from the documentation too.

    A part of the app that is no route with methods, such as a mounted app, has to be looked at by
    itself: there is none.
    """
    found = set()
    for route in iter_route_contexts(app.routes):
        assert route.methods, f"{route.path} has no methods"
        found |= {f"{method} {route.path_format}" for method in route.methods}
    return found | {route.replace("GET", "HEAD", 1) for route in found if route.startswith("GET")}


def call(client: httpx.Client, route: str, **parameters: str) -> httpx.Response:
    """Call a route of that form; parameters that are left out are of things that are not there."""
    method, path = route.split(" ")
    values = {"number": "0", **parameters}
    path = re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], "nobody"), path)
    return client.request(method, path)
