"""The table of routes, and the OpenAPI document that is made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from ..access.permissions import rule_of
from ..views import JSON
from .shapes import REFUSALS, answer_content, body_schema

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parameter(NamedTuple):
    """A query parameter: its name, JSON type and meaning."""

    name: str
    type: str
    words: str


class Route(NamedTuple):
    """One line of the API.

    Attributes:
        method, path: as HTTP has them; `{ref}` is a job, `{name}` a node, `{queue}` a queue, `{window}` a maintenance
            window, `{sha256}` a snapshot.
        handler: answers it.
        words: what it is for.
        query: parameters after the question mark.
        takes: keys of the JSON body and what they mean.
        gives: status and what the answer holds.
        media: type of the answer.
    """

    method: str
    path: str
    handler: Handler
    words: str
    query: Sequence[Parameter] = ()
    takes: dict[str, str] | None = None
    gives: dict[int, str] = {200: "done"}  # noqa: RUF012 - a NamedTuple's default, read only
    media: str = "application/json"


_PATH = {
    "ref": "id, ULID or a unique prefix of one, name, @ (the last one submitted) or @~N",
    "name": "name of a node",
    "queue": "name of a queue",
    "window": "number of a maintenance window",
    "user": "name of a user",
    "token": "id of a token: what is between the first two `_` of it",
    "part": "number of a part of the archive",
    "sha256": "SHA-256 of the snapshot, in hexadecimal digits",
}


def openapi(routes: Sequence[Route], version: str) -> JSON:
    """The routes as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    problem = {"type": "object", "required": ["error"], "properties": {"error": {"$ref": "#/components/schemas/Error"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "gpusched", "version": version, "description": "A GPU queue for Ray clusters."},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["code", "message", "hint"],
                    "properties": {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "hint": {"type": "string"},
                        "problems": {"type": "array", "items": {"type": "object"}},
                    },
                }
            },
            "responses": {
                f"Error{status}": {"description": words, "content": {"application/json": {"schema": problem}}}
                for status, words in REFUSALS.items()
            },
        },
    }


def _operation(route: Route) -> JSON:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters: list[JSON] = [
        {"name": name, "in": "path", "required": True, "description": _PATH[name], "schema": {"type": "string"}}
        for name in names
    ]
    parameters += [
        {"name": one.name, "in": "query", "description": one.words, "schema": {"type": one.type}} for one in route.query
    ]
    operation: JSON = {
        "summary": route.words,
        "operationId": route.method.lower() + "".join(part.strip("{}").title() for part in route.path.split("/")[2:]),
        "parameters": parameters,
        "responses": {
            **{
                str(status): {
                    "description": words,
                    "content": answer_content(route.method, route.path, route.media),
                }
                for status, words in route.gives.items()
            },
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in REFUSALS},
        },
    }
    if route.takes is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body_schema(route.takes)}}}
    rule = rule_of(route.method, route.path)
    operation["x-role"] = rule.least.value
    if rule.others is not None:
        operation["x-role-others"] = rule.others.value
    # On loopback, questions of the control plane's own user take no token.
    operation["security"] = [{"token": []}, *([{}] if route.method in {"GET", "HEAD"} else [])]
    return operation
