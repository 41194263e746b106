"""Errors as HTTP answers."""

from __future__ import annotations

import logging
import math

from aiohttp import web
from aiohttp.typedefs import Handler

from ...jobs.errors import BusyError, GpuschedError
from ..access.directory import UnknownCallerError
from ..desk import RequestError
from ..views import JSON, error_view

log = logging.getLogger("gpusched.server")

STATUS = {
    "invalid_spec": 422,
    "invalid_trace": 422,
    "infeasible": 422,
    "invalid_snapshot": 422,
    "bad_request": 400,
    "not_allowed": 403,
    "not_found": 404,
    "conflict": 409,
    "lease_held": 503,
    "lease_lost": 503,
    "store": 503,
    "unreachable": 503,
    "too_large": 413,
    "busy": 429,
}
"""HTTP status by an error's code; all others are 500."""


class TooLargeError(GpuschedError):
    """The body is over the limit."""

    code = "too_large"


def answer(error: GpuschedError) -> web.Response:
    """The answer that carries an error."""
    status = 401 if isinstance(error, UnknownCallerError) else STATUS.get(error.code, 500)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004 - Unauthorized
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return web.json_response({"error": error_view(error)}, status=status, headers=headers)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as `{"error": ...}`."""
    try:
        return await handler(request)
    except GpuschedError as error:
        return answer(error)
    except web.HTTPRequestEntityTooLarge as error:
        most = f"{request.client_max_size >> 20} MiB" if "exceeded" in (error.text or "exceeded") else error.text
        return answer(TooLargeError(f"the request is larger than {most}", hint="submit in parts"))
    except web.RequestPayloadError:
        return answer(RequestError("the body is damaged, or not encoded as its headers say"))
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect is no failure
            raise
        message: JSON = {"code": "not_found" if error.status == 404 else "bad_request", "hint": "see /v1/openapi.json"}  # noqa: PLR2004 - Not Found
        return web.json_response(
            {"error": {**message, "message": f"{request.method} {request.path}: {error.reason}"}},
            status=error.status,
            headers={name: value for name, value in error.headers.items() if name == "Allow"},
        )
    except ConnectionError:
        raise  # the client went away
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return answer(GpuschedError(f"the control plane failed: {error!r}", hint="its log says more"))
