"""What a request asks for: query parameters and bodies as checked values. A fault is a RequestError that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from aiohttp import web

from ...jobs.errors import GpuschedError
from ...jobs.job import State
from ...jobs.spec import JobSpec, read_jobs
from ..desk import RequestError
from ..service import Request
from ..store.queries import SORTS, JobFilter
from ..views import seconds

MOST_JOBS = 20_000
"""Jobs in one request."""

_TRUE = {"1": True, "true": True, "yes": True, "": True, "0": False, "false": False, "no": False}


def flag(query: Mapping[str, str], name: str) -> bool:
    """A truth value; `?follow` alone means yes."""
    given = query.get(name)
    if given is None:
        return False
    if given.lower() not in _TRUE:
        raise RequestError(f"{name}={given} is no truth value", hint="write 1 or 0")
    return _TRUE[given.lower()]


def whole(query: Mapping[str, str], name: str, default: int | None = None, *, least: int = 0) -> int | None:
    """A whole number."""
    given = query.get(name)
    if given is None:
        return default
    try:
        number = int(given)
    except ValueError:
        raise RequestError(f"{name}={given} is no whole number") from None
    if not least <= number < 1 << 53:
        raise RequestError(f"{name}={given} is out of range", hint=f"at least {least}")
    return number


def time(query: Mapping[str, str], name: str) -> float | None:
    """A time, as ISO 8601 or in seconds."""
    given = query.get(name)
    if given is None:
        return None
    try:
        return seconds(given)
    except ValueError:
        raise RequestError(f"{name}={given} is no time", hint="such as 2026-03-01T12:00:00Z, or UTC seconds") from None


def duration(query: Mapping[str, str], name: str, default: float, most: float) -> float:
    """Seconds, cut to `most`."""
    given = query.get(name)
    if given is None:
        return default
    try:
        number = float(given)
    except ValueError:
        raise RequestError(f"{name}={given} is no number of seconds") from None
    if not number >= 0:
        raise RequestError(f"{name}={given} is out of range")
    return min(number, most)


def job_filter(request: web.Request) -> JobFilter:
    """Which jobs a listing is for."""
    query = request.query
    states = frozenset(_state(word) for word in query.get("state", "").split(",") if word)
    labels = {}
    for label in query.getall("label", []):
        key, sign, value = label.partition("=")
        if not sign:
            raise RequestError(f"label={label} has no value", hint="label=key=value")
        labels[key] = value
    sort = query.get("sort", "id")
    if sort not in SORTS:
        raise RequestError(f"sort={sort} is not known", hint=f"one of {', '.join(SORTS)}")
    newest = flag(query, "newest")
    array = whole(query, "array")
    after = whole(query, "after")
    if after is not None and sort != "id":
        raise RequestError("`after` goes with sort=id only")
    return JobFilter(
        states=states,
        active=None if states or flag(query, "all") else True,
        user=query.get("user"),
        queue=query.get("queue"),
        name=query.get("name"),
        folded=array is None and not flag(query, "tasks"),
        array=array,
        labels=labels,
        since=time(query, "since"),
        until=time(query, "until"),
        before=after if newest else None,
        after=None if newest else after,
        sort=sort,
        descending=newest,
        limit=whole(query, "limit", 1000, least=1),
    )


def _state(word: str) -> State:
    try:
        return State(word.upper())
    except ValueError:
        raise RequestError(f"there is no state {word}", hint=f"one of {', '.join(State)}") from None


def body(text: str | bytes) -> dict[str, Any]:
    """A body as a JSON object; an empty one is an empty object."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestError("the body is no JSON object")
    return found


class Submission:
    """The body of `POST /v1/jobs`, checked.

    Attributes:
        requests: the jobs. hold, queue_anyway, dry_run: as asked.
    """

    KEYS = frozenset({"jobs", "documents", "hold", "queue_anyway", "dry_run"})

    def __init__(self, text: bytes) -> None:
        found = body(text)
        unknown = found.keys() - self.KEYS
        if unknown:
            raise RequestError(
                f"unknown keys: {', '.join(sorted(unknown))}", hint=f"known: {', '.join(sorted(self.KEYS))}"
            )
        self.hold, self.queue_anyway, self.dry_run = (
            _truth(found, name) for name in ("hold", "queue_anyway", "dry_run")
        )
        jobs, documents = _objects(found, "jobs"), _objects(found, "documents")
        if len(jobs) + len(documents) > MOST_JOBS:
            raise RequestError(f"more than {MOST_JOBS:,} jobs in one request", hint="submit in parts")
        self.requests = [_request(number, job) for number, job in enumerate(jobs)]
        for document in documents:
            file, source = document.get("file", "request"), document.get("text")
            if not isinstance(source, str) or not isinstance(file, str):
                raise RequestError("documents: each needs `text`, and may have `file`")
            self.requests += [Request(spec) for spec in read_jobs(source, file=file, environ={})]
        if not self.requests:
            raise RequestError("no jobs were given", hint='{"jobs": [...]} or {"documents": [...]}')


def _truth(found: dict[str, Any], name: str) -> bool:
    given = found.get(name, False)
    if not isinstance(given, bool):
        raise RequestError(f"{name} must be true or false")
    return given


def _objects(found: dict[str, Any], name: str) -> Sequence[dict[str, Any]]:
    given = found.get(name, [])
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise RequestError(f"{name} must be a list of objects")
    return given


def _request(number: int, job: dict[str, Any]) -> Request:
    spec, secrets, snapshot, source = (job.get(name) for name in ("spec", "secrets", "snapshot", "source"))
    if not isinstance(spec, str):
        raise RequestError(f"jobs[{number}].spec must be the text of a resolved spec", hint="or send `documents`")
    if not isinstance(secrets, dict | None) or not all(isinstance(value, str) for value in (secrets or {}).values()):
        raise RequestError(f"jobs[{number}].secrets must be an object of texts")
    if not isinstance(snapshot, str | None) or not isinstance(source, str | None):
        raise RequestError(f"jobs[{number}]: snapshot and source must be texts")
    try:
        read = JobSpec.from_store(spec, secrets, source=source or "") if secrets else _known(spec, source or "")
        read.secret_values()
    except GpuschedError as error:
        raise RequestError(f"jobs[{number}].spec: {error.message}", hint=error.hint) from None
    return Request(read, snapshot)


@lru_cache(maxsize=1024)
def _known(spec: str, source: str) -> JobSpec:
    """Sweeps and arrays send the same text many times; a spec never changes."""
    return JobSpec.from_store(spec, source=source)
