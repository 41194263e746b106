"""Wait for a job's state, across restarts of the control plane."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ...jobs.errors import UnreachableError
from .follow import PATIENCE, PAUSE, words_of
from .narrator import Narrator

if TYPE_CHECKING:
    from ..client import Client

SLICE = 3.0
"""Seconds of one question: then it is said again what is being waited for."""


def wait_for(
    connect: Callable[[], Client],
    client: Client,
    ref: str,
    *,
    until: Literal["done", "running"] = "done",
    deadline: float | None = None,
    narrator: Narrator,
    user: str = "",
) -> tuple[bool, dict[str, Any]]:
    """Block until a job is done or running, or the deadline (monotonic seconds); (whether it is, the job).

    A job that is final and never will run ends it too.

    Raises:
        NotFoundError: no such job.
        UnreachableError: the control plane does not answer for a while.
    """
    lost: float | None = None
    while True:
        left = SLICE if deadline is None else max(min(SLICE, deadline - time.monotonic()), 0.0)
        try:
            met, job = client.wait(ref, until=until, timeout=left, user=user)
        except UnreachableError:
            now = time.monotonic()
            lost = now if lost is None else lost
            if now - lost > PATIENCE or (deadline is not None and now > deadline):
                raise
            narrator.say("the control plane does not answer: waiting for it; the job goes on")
            time.sleep(PAUSE)
            client = _again(connect, client)
            continue
        lost = None
        ref = str(job["id"])  # a name or @ may mean another job in a moment
        if met or job["ended"] is not None or (deadline is not None and time.monotonic() >= deadline):
            return met, job
        narrator.say(f"job {ref} ({job['name']}) is {words_of(job['state'], job.get('message', ''))}")


def _again(connect: Callable[[], Client], client: Client) -> Client:
    """A control plane that was started again has another address; one that was not, none."""
    try:
        return connect()
    except UnreachableError:
        return client
