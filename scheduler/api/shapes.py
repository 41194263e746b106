"""What bodies and answers look like, as JSON schemas for the OpenAPI document: by key, which means one thing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..views import JSON

_TEXT: JSON = {"type": "string"}
_MAYBE: JSON = {"type": ["string", "null"]}
_FLAG: JSON = {"type": "boolean"}
_TIME: JSON = {"type": ["string", "number", "null"]}
_NAMES: JSON = {"type": "array", "items": _TEXT}
_ROWS: JSON = {"type": "array", "items": {"type": "object"}}
_OBJECT: JSON = {"type": "object"}
_COUNT: JSON = {"type": "integer"}

BODY: Mapping[str, JSON] = MappingProxyType(
    {
        "jobs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "spec": _TEXT,
                    "source": _MAYBE,
                    "secrets": {"type": ["object", "null"], "additionalProperties": _TEXT},
                    "snapshot": _MAYBE,
                },
            },
        },
        "documents": {
            "type": "array",
            "items": {"type": "object", "required": ["text"], "properties": {"text": _TEXT, "file": _TEXT}},
        },
        **dict.fromkeys(("hold", "queue_anyway", "dry_run", "strict", "drain", "forget_old", "disabled"), _FLAG),
        **dict.fromkeys(("user", "reason", "name", "text", "file", "note", "role"), _TEXT),
        **dict.fromkeys(("groups",), _NAMES),
        **dict.fromkeys(("version",), _COUNT),
        **dict.fromkeys(("start", "end", "deadline", "expires"), _TIME),
    }
)
"""Keys of request bodies."""

ANSWER: Mapping[str, JSON] = MappingProxyType(
    {
        **dict.fromkeys(
            ("jobs", "verdicts", "events", "nodes", "queues", "versions", "keys", "rows", "gpu", "users", "tokens"),
            _ROWS,
        ),
        **dict.fromkeys(("job", "node", "queue", "policy", "window"), _OBJECT),
        **dict.fromkeys(("sealed", "locked"), _COUNT),
        **dict.fromkeys(("known", "stopping", "met", "leader"), _FLAG),
        "next": {"type": ["integer", "null"]},
    }
)
"""Keys of answers that mean the same wherever they stand at the top."""

_ANSWERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "GET /v1/jobs": ("jobs", "next"),
        "GET /v1/jobs/{ref}/events": ("events",),
        "GET /v1/jobs/{ref}/wait": ("met", "job"),
        "POST /v1/jobs/{ref}/cancel": ("job",),
        "POST /v1/jobs/{ref}/hold": ("job",),
        "POST /v1/jobs/{ref}/release": ("job",),
        "POST /v1/jobs/{ref}/requeue": ("job",),
        "PUT /v1/snapshots/{sha256}": ("known",),
        "GET /v1/nodes": ("nodes",),
        "POST /v1/policy": ("policy",),
        "GET /v1/queues/{queue}": ("queue",),
        "GET /v1/queue-versions": ("versions",),
        "GET /v1/secrets": ("keys",),
        "POST /v1/secrets/rotate-key": ("keys", "sealed", "locked"),
        "GET /v1/usage": ("rows",),
        "GET /v1/top": ("nodes", "gpu", "jobs", "queue"),
        "GET /v1/status": ("leader", "policy"),
        "POST /v1/shutdown": ("stopping",),
    }
)
"""Keys that an answer always has."""

REFUSALS: Mapping[int, str] = MappingProxyType(
    {
        400: "what was asked is malformed",
        401: "who asks is not known",
        403: "who asks may not",
        404: "there is no such thing",
        408: "the body did not come in time",
        409: "the state that things are in does not allow it",
        413: "the body is too large",
        422: "the document, snapshot or job is not good",
        429: "too much at once: `Retry-After` says when to ask again",
        431: "the URL or the headers are too large",
        503: "the database, the leader or room for it is not there at present",
    }
)
"""Every status that refuses, with the usual error object. 500 is not among them: it is a fault of ours."""


def body_schema(keys: Mapping[str, str]) -> JSON:
    """The schema of a body that takes these keys, with what they mean."""
    return {
        "type": "object",
        "properties": {key: {**BODY.get(key, {}), "description": words} for key, words in keys.items()},
    }


def answer_content(method: str, path: str, media: str) -> dict[str, JSON]:
    """What a good answer holds, by its type, as far as it is promised. An answer to HEAD holds nothing."""
    if method == "HEAD":
        return {}
    if media == "text/event-stream":  # followed; else it is one answer
        return {media: {}, "application/json": {"schema": {"type": "object", "required": ["events"]}}}
    if media != "application/json":
        return {media: {}}
    keys = _ANSWERS.get(f"{method} {path}", ())
    schema: JSON = {"type": "object"}
    if keys:
        schema |= {"required": list(keys), "properties": {key: ANSWER[key] for key in keys}}
    return {media: {"schema": schema}}
