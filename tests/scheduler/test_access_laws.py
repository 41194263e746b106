"""For any user, role, route and owner, what the server does is what the one table of permissions says."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_kit import spec_text

from gpusched.scheduler.access.model import Role
from gpusched.scheduler.access.permissions import PERMISSIONS

OWNERS = ("ann", "bob", "eve", "olga")
SAFE = sorted(line for line in PERMISSIONS if line != "POST /v1/shutdown")
"""All but the one after which nobody answers."""


@pytest.fixture
def lab(plane):
    """A control plane with two of each role, and a held job of each of some owners."""
    tokens = {}
    for role in Role:
        for name in (f"{role}1", f"{role}2"):
            assert plane.post("/v1/users", {"name": name, "role": role}).status == 201
            tokens[name] = (role, plane.post("/v1/tokens", {"user": name}).json["token"]["token"])
    return plane, tokens


def job_of(plane, owner):
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text(user=owner, hold=True)}]})
    return reply.json["jobs"][0]["id"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_the_server_does_is_what_the_table_says(lab, data):
    plane, tokens = lab
    name = data.draw(st.sampled_from(sorted(tokens)), "who")
    line = data.draw(st.sampled_from(SAFE), "asks")
    owner = data.draw(st.sampled_from([name, *sorted(tokens)]), "whose")
    claimed = data.draw(st.sampled_from(["", owner, "ann"]), "claims to be")
    role, token = tokens[name]
    method, path = line.split(" ", 1)
    known = {"sha256": "0" * 64, "user": "nobody", "name": "nobody", "token": "none"}
    job = None
    if "{ref}" in path:
        job = job_of(plane, owner)
        known["ref"] = str(job)
    path = re.sub(r"{(\w+)}", lambda part: known.get(part[1], "nobody"), path)
    query = f"?user={claimed}" if claimed and job is not None else ""
    if line in {"GET /v1/jobs/{ref}/wait", "GET /v1/jobs/{ref}/logs"}:
        query += "&timeout=0" if query else "?timeout=0"
    body = {} if method == "POST" else None
    if job is not None and method == "POST" and claimed:
        body = {"user": claimed}
    before = None if job is None else plane.job(job)
    reply = plane.ask(method, path + query, body, token=token)
    allowed = PERMISSIONS[line].allows(role, own=job is None or owner == name)
    assert reply.status != 401
    assert (reply.status != 403) == allowed, (line, role, owner, name, reply.body)
    if job is None:
        return
    after = plane.job(job)
    assert after["user"] == owner
    if after["state"] != before["state"]:
        assert name == owner or role.covers(Role.OPERATOR), "nobody else changes a job"
    elif reply.status == 403:
        assert json.loads(reply.body)["error"]["hint"].startswith("ask an admin")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_job_is_whose_token_brought_it_unless_an_operator_says_another(lab, data):
    plane, tokens = lab
    name = data.draw(st.sampled_from(sorted(tokens)), "who")
    claimed = data.draw(st.sampled_from([*OWNERS, None]), "claims")
    role, token = tokens[name]
    spec = spec_text(hold=True, **({"user": claimed} if claimed else {}))
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec}]}, token=token)
    if role is Role.VIEWER:
        assert reply.status == 403
        return
    expected = claimed if claimed and role.covers(Role.OPERATOR) else name
    assert reply.json["jobs"][0]["user"] == expected
    assert plane.job(reply.json["jobs"][0]["id"])["spec"].get("user") in {None, expected}
