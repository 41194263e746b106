"""Users, roles and tokens over HTTP, against a real server: who is let in, as whom, and what is written down of it."""

import json
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from live_kit import spec_text, until

from gpusched.scheduler.access import directory, reference, tokens
from gpusched.scheduler.access.model import ROLES, Role
from gpusched.scheduler.access.permissions import PERMISSIONS, rule_of


def let_in(plane, name, as_a="user", groups=(), **more):
    """A user, and their token."""
    reply = plane.post("/v1/users", {"name": name, "role": as_a, "groups": list(groups)})
    assert reply.status == 201, reply.body
    reply = plane.post("/v1/tokens", {"user": name, **more})
    assert reply.status == 201, reply.body
    return reply.json["token"]["token"]


def submit(plane, token, **keys):
    return plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("sleep 60", **keys)}]}, token=token)


def trail(plane, **query):
    words = "&".join(f"{key}={value}" for key, value in query.items())
    return plane.get(f"/v1/audit?{words}").json["lines"]


def test_a_job_is_the_authenticated_user_s_whatever_its_file_claims(plane):
    bob = let_in(plane, "bob")
    job = submit(plane, bob, user="eve").json["jobs"][0]
    assert job["user"] == "bob"
    assert plane.get("/v1/whoami", token=bob).json | {"expires": None} == {
        "user": "bob", "role": "user", "groups": [], "token": tokens.id_of(bob), "expires": None,
    }  # fmt: skip


def test_an_operator_submits_for_others_and_the_trail_says_so(plane):
    oper = let_in(plane, "olga", "operator")
    assert submit(plane, oper, user="bob").json["jobs"][0]["user"] == "bob"
    line = trail(plane, verb="submit")[0]
    assert (line["user"], line["for"], line["role"], line["outcome"]) == ("olga", "bob", "operator", "done")


def test_nobody_but_the_owner_and_operators_changes_a_job(plane):
    bob, eve, oper = let_in(plane, "bob"), let_in(plane, "eve"), let_in(plane, "olga", "operator")
    job = submit(plane, bob, gpus=3).json["jobs"][0]
    reply = plane.post(f"/v1/jobs/{job['id']}/cancel", token=eve)
    assert (reply.status, reply.json["error"]["code"]) == (403, "not_allowed")
    assert reply.json["error"]["message"] == (
        f"eve (role user) may not `cancel` job {job['id']}: it is bob's; it takes role operator"
    )
    assert "gpusched users role eve operator" in reply.json["error"]["hint"]
    # Not by its name, by `@` or in somebody's name either.
    assert plane.post("/v1/jobs/job/cancel", token=eve).status == 403
    assert plane.post("/v1/jobs/@/cancel?user=bob", {"user": "bob"}, token=eve).status == 403
    assert plane.job(job["id"])["state"] in {"STARTING", "RUNNING"}
    assert plane.get(f"/v1/jobs/{job['id']}/logs", token=eve).status == 403
    assert plane.get(f"/v1/jobs/{job['id']}/logs", token=oper).status == 200
    assert plane.post(f"/v1/jobs/{job['id']}/cancel", token=oper).status == 200


def test_others_see_of_a_job_neither_its_script_nor_its_variables(plane):
    bob, eve = let_in(plane, "bob"), let_in(plane, "eve", "viewer")
    spec = spec_text("echo my-recipe", env={"KEY": "hunter2"}, hold=True)
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec, "source": "echo my-recipe"}]}, token=bob)
    job = reply.json["jobs"][0]["id"]
    seen = plane.get(f"/v1/jobs/{job}", token=eve).body
    assert b"hunter2" not in seen
    assert b"my-recipe" not in seen
    assert b"KEY" in seen
    assert b"my-recipe" in plane.get(f"/v1/jobs/{job}", token=bob).body


def test_a_token_is_shown_once_and_kept_as_a_hash_alone(plane):
    bob = let_in(plane, "bob", note="laptop")
    secret = bob.split("_", 2)[2]
    listed = plane.get("/v1/tokens?all=1")
    assert listed.json["tokens"][0]["note"] == "laptop"
    assert secret not in listed.body.decode()
    database = sqlite3.connect(plane.home / "gpusched.db")
    dump = "\n".join(database.iterdump())
    database.close()
    assert secret not in dump
    assert tokens.digest(bob) in dump
    assert secret not in json.dumps(trail(plane))


def test_a_revoked_token_is_refused_at_once_and_so_are_all_of_a_disabled_user(plane):
    bob = let_in(plane, "bob")
    second = plane.post("/v1/tokens", {"note": "another"}, token=bob).json["token"]["token"]
    assert plane.post(f"/v1/tokens/{tokens.id_of(bob)}/revoke").json["token"]["state"] == "revoked"
    reply = plane.get("/v1/jobs", token=bob)
    assert (reply.status, reply.json["error"]["message"]) == (401, f"token {tokens.id_of(bob)} was revoked")
    job = submit(plane, second).json["jobs"][0]["id"]
    assert plane.post("/v1/users/bob", {"disabled": True}).json["user"]["disabled"]
    assert plane.get("/v1/jobs", token=second).json["error"]["message"] == "user bob is disabled"
    assert plane.job(job)["state"] in {"STARTING", "RUNNING"}, "what runs goes on"
    plane.post("/v1/users/bob", {"disabled": False})
    assert plane.get("/v1/jobs", token=second).status == 200
    assert plane.ask("DELETE", "/v1/users/bob").status == 200
    assert plane.get("/v1/jobs", token=second).status == 401
    assert plane.job(job)["user"] == "bob"


def test_a_token_ends_when_it_was_said_to_and_makes_none_that_lasts_longer(plane):
    bob = let_in(plane, "bob", expires="2s")
    child = plane.post("/v1/tokens", {"expires": "never"}, token=bob).json["token"]
    assert child["expires"] is not None
    until(lambda: plane.get("/v1/jobs", token=bob).status == 401)
    reply = plane.get("/v1/jobs", token=bob)
    assert reply.json["error"]["message"] == f"token {tokens.id_of(bob)} has expired"
    until(lambda: plane.get("/v1/jobs", token=child["token"]).status == 401)


def test_a_token_carries_no_more_than_it_was_made_for(plane):
    token = let_in(plane, "dash", "admin", role="viewer", expires="never")
    assert plane.get("/v1/jobs", token=token).status == 200
    assert submit(plane, token).status == 403
    again = plane.post("/v1/tokens", {"role": "admin"}, token=token).json["token"]
    assert again["role"] == "viewer"


def test_one_s_tokens_are_one_s_own(plane):
    bob, eve = let_in(plane, "bob"), let_in(plane, "eve")
    assert [row["user"] for row in plane.get("/v1/tokens", token=eve).json["tokens"]] == ["eve"]
    assert plane.get("/v1/tokens?user=bob", token=eve).status == 403
    assert plane.get("/v1/tokens?all=1", token=eve).status == 403
    assert plane.post("/v1/tokens", {"user": "bob"}, token=eve).status == 403
    assert plane.post(f"/v1/tokens/{tokens.id_of(bob)}/revoke", token=eve).status == 403
    assert plane.post(f"/v1/tokens/{tokens.id_of(eve)}/revoke", token=eve).status == 200


def test_what_another_control_plane_revokes_is_refused_here_within_two_seconds(plane):
    bob = let_in(plane, "bob")
    assert plane.get("/v1/jobs", token=bob).status == 200
    with sqlite3.connect(plane.home / "gpusched.db") as database:  # as another process on the same database does
        database.execute("UPDATE tokens SET revoked = 1")
        database.execute("UPDATE meta SET value = value + 1 WHERE key = 'people'")
    database.close()
    begun = time.monotonic()
    until(lambda: plane.get("/v1/jobs", token=bob).status == 401)
    assert time.monotonic() - begun < 2.0


def test_a_long_answer_ends_when_its_token_is_revoked(plane):
    bob = let_in(plane, "bob")
    job = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("while sleep 0.1; do date; done")}]}, token=bob)
    number = job.json["jobs"][0]["id"]
    plane.wait(number, until_state="running")
    found = []
    reader = threading.Thread(
        target=lambda: found.append(plane.get(f"/v1/jobs/{number}/logs?follow=1", token=bob, timeout=40).body)
    )
    reader.start()
    plane.post(f"/v1/tokens/{tokens.id_of(bob)}/revoke")
    reader.join(20)
    assert not reader.is_alive()
    assert found == [] or b"not good any more" in found[0] or b"was revoked" in found[0]


def test_every_change_and_every_refusal_is_in_the_trail_and_no_secret_is(plane, monkeypatch):
    monkeypatch.setenv("PASS", "hunter2")
    bob = let_in(plane, "bob")
    plane.post(
        "/v1/jobs",
        {"jobs": [{"spec": spec_text("true", name="quiet", secrets=["PASS"]), "secrets": {"PASS": "hunter2"}}]},
        token=bob,
    )
    submit(plane, bob, hold=True)
    plane.post("/v1/jobs/2/release", token=bob)
    plane.post("/v1/nodes/n1/cordon", {"reason": "fan"})
    plane.post("/v1/policy", {"name": "fifo"})
    plane.post("/v1/queues", {"text": "queues: [{name: default}]"})
    for _ in range(40):
        plane.post("/v1/policy", {"name": "fifo"}, token=bob)
    plane.post("/v1/shutdown", token="gsk_" + "a" * 10 + "_" + "b" * 43)
    plane.post("/v1/shutdown", token="")
    plane.post("/v1/jobs/1/cancel", token=bob)
    plane.wait(1)
    plane.post("/v1/jobs/1/hold", token=bob)
    until(lambda: any(line["outcome"] != "done" for line in trail(plane)), within=15)
    lines = trail(plane)
    done = [(line["user"], line["verb"], line["on"]) for line in lines if line["outcome"] == "done"]
    assert set(done) >= {
        ("ann", "users add", "user bob as user"),
        ("bob", "submit", "job 1"),
        ("bob", "release", "job 2"),
        ("ann", "cordon", "node n1"),
        ("ann", "policy use", "policy fifo"),
        ("ann", "queues apply", "queues"),
    }
    refused = {(line["user"], line["verb"], line["outcome"]): line["count"] for line in lines if "count" in line}
    assert refused["bob", "policy use", "not_allowed"] == 40
    assert refused["", "down", "not_allowed"] == 2
    assert refused["bob", "hold", "conflict"] == 1
    assert "hunter2" not in json.dumps(lines)
    assert all(line["from"] == "127.0.0.1" for line in lines if line["verb"] != "several")
    assert trail(plane, user="bob", outcome="not_allowed")[0]["verb"] == "policy use"
    # The journal that others follow is not the trail, and a job's own has nothing of it.
    assert "audit" not in {event["kind"] for event in plane.get("/v1/events").json["events"]}
    assert "audit" not in {event["kind"] for event in plane.get("/v1/jobs/2/events").json["events"]}


def test_the_line_of_the_trail_is_in_the_transaction_of_what_it_is_about(plane):
    bob = let_in(plane, "bob")
    seen = []
    with plane.controller.changes.listening(seen.append):
        job = submit(plane, bob, hold=True).json["jobs"][0]["id"]
    assert any({0, job} <= jobs for jobs in seen), "one commit has both"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/v1/users", {}, 400, "name is missing"),
        ("POST", "/v1/users", {"name": "a b"}, 400, "'a b' is no name of a user"),
        ("POST", "/v1/users", {"name": "x", "role": "king"}, 400, "there is no role 'king'"),
        ("POST", "/v1/users", {"name": "x", "groups": "nlp"}, 400, "groups must be a list of names"),
        ("POST", "/v1/users", {"name": "x", "rolle": "user"}, 400, "unknown keys: rolle"),
        ("POST", "/v1/users/x", {"role": "user"}, 404, "there is no user 'x'"),
        ("DELETE", "/v1/users/x", None, 404, "there is no user 'x'"),
        ("POST", "/v1/tokens", {"user": "x"}, 404, "there is no user 'x'"),
        ("POST", "/v1/tokens", {"expires": "soon"}, 400, "expires='soon' is no duration"),
        ("POST", "/v1/tokens/nope/revoke", {}, 404, "there is no token 'nope'"),
    ],
)
def test_a_malformed_request_about_people_is_told_what_is_wrong(plane, *, method, path, body, status, words):
    reply = plane.ask(method, path, body)
    assert (reply.status, reply.json["error"]["message"][: len(words)]) == (status, words)
    assert plane.get("/v1/users").json["users"] == []


def test_the_owner_needs_no_user_and_becomes_one_with_a_first_token(plane):
    assert plane.get("/v1/whoami").json["role"] == "admin"
    assert plane.get("/v1/whoami", token="").json == {
        "user": "ann", "role": "admin", "groups": [], "token": "none", "expires": None,
    }  # fmt: skip
    made = plane.post("/v1/tokens", {"note": "elsewhere"}).json["token"]
    assert plane.get("/v1/whoami", token=made["token"]).json["role"] == "admin"
    assert [user["name"] for user in plane.get("/v1/users").json["users"]] == ["ann"]


def test_every_route_has_a_line_in_the_table_of_permissions(plane):
    served = {
        f"{method.upper()} {path}": operation
        for path, methods in plane.get("/v1/openapi.json").json["paths"].items()
        for method, operation in methods.items()
    }
    assert served.keys() == PERMISSIONS.keys()
    for line, operation in served.items():
        assert operation["x-role"] == PERMISSIONS[line].least
        assert operation["security"][0] == {"token": []}
        if not line.startswith(("GET", "HEAD")):
            assert PERMISSIONS[line].least.covers(Role.USER) or PERMISSIONS[line].others, line
            assert operation["security"] == [{"token": []}]
    assert len({rule.verb for rule in PERMISSIONS.values()}) >= len(PERMISSIONS) - 2


def test_tokens_are_compared_in_constant_time_and_look_like_what_they_are():
    made = {tokens.new_token().text for _ in range(50)}
    assert len(made) == 50
    assert all(tokens.id_of(text) and text.startswith("gsk_") for text in made)
    assert tokens.id_of("gsk_short") == tokens.id_of("") == ""
    one = tokens.new_token()
    assert tokens.matches(one.text, one.digest)
    assert not tokens.matches(one.text, None)
    assert not tokens.matches(one.text + "x", one.digest)
    assert directory.FRESH <= 2


def test_the_page_has_the_table_and_the_roles_as_the_code_has_them():
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text("utf-8")
    inside = page.split("<!-- from here: python -m gpusched.scheduler.access.reference -->\n")[1]
    assert inside.split("<!-- to here -->")[0] == reference.table(), "write it anew with that command"
    for role, words in ROLES.items():
        assert f"| `{role}` | {words} |" in page


def test_a_route_that_the_table_forgot_is_an_administrators():
    assert rule_of("POST", "/v1/brand-new").least is Role.ADMIN


def test_a_control_plane_that_stands_by_knows_the_same_people_and_lets_go_of_them_as_fast(plane, plane_in):
    bob = let_in(plane, "bob")
    standby = plane_in("standby", nodes=(), database=str(plane.home / "gpusched.db"))
    until(lambda: standby.controller.figures.standby)
    assert standby.get("/v1/whoami", token=bob).json["user"] == "bob"
    assert standby.post("/v1/users", {"name": "eve"}).status == 503, "who stands by writes nothing"
    plane.post("/v1/users/bob", {"disabled": True})
    begun = time.monotonic()
    until(lambda: standby.get("/v1/whoami", token=bob).status == 401)
    assert time.monotonic() - begun < 2.0
