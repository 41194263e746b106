"""Answers in JSON."""

from __future__ import annotations

import json

from aiohttp import web

from ..views import JSON


def as_json(answer: JSON, *, status: int = 200) -> web.Response:
    """A JSON object as the whole answer."""
    return web.Response(text=json.dumps(answer), status=status, content_type="application/json")
