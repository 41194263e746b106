"""Errors as HTTP answers, and who may ask: a token for writes, and for everything beyond loopback."""

from __future__ import annotations

import hmac
import ipaddress
import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ...jobs.errors import GpuschedError, NotAllowedError
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
    "store": 503,
    "unreachable": 503,
    "too_large": 413,
}
"""HTTP status by an error's code; all others are 500."""


class UnknownCallerError(NotAllowedError):
    """There is no token, or a wrong one."""


class TooLargeError(GpuschedError):
    """The body is over the limit."""

    code = "too_large"


def answer(error: GpuschedError) -> web.Response:
    """The answer that carries an error."""
    status = 401 if isinstance(error, UnknownCallerError) else STATUS.get(error.code, 500)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004 - Unauthorized
    return web.json_response({"error": error_view(error)}, status=status, headers=headers)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as `{"error": ...}`."""
    try:
        return await handler(request)
    except GpuschedError as error:
        return answer(error)
    except web.HTTPRequestEntityTooLarge as error:
        return answer(TooLargeError(f"the request is larger than {error.text or 'the limit'}", hint="submit in parts"))
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def guard(token: str, *, loopback: bool) -> Middleware:
    """Middleware: writes need the token, and so does everything if others than this machine can reach us.

    Reads on loopback need none, but have to be addressed to loopback: else a web page could have a browser ask under a
    name of its own.
    """
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if hmac.compare_digest(given, expected):
            return await handler(request)
        hint = "the token is in control-plane.json of the state directory, or in GPUSCHED_TOKEN"
        if given:
            raise UnknownCallerError("the token is not the control plane's", hint=hint)
        if request.method not in {"GET", "HEAD"} or not loopback:
            raise UnknownCallerError(f"{request.method} {request.path} needs a token", hint=hint)
        if not is_loopback((request.url.host or "").lower()):
            raise UnknownCallerError(f"{request.url.host} is not an address of this machine's own", hint=hint)
        return await handler(request)

    return check
