"""Access lists of queues: read and told wrong with line and key, inherited, and asked at each way into a queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_kit import spec_text
from test_access import let_in

from gpusched.jobs.errors import SpecError
from gpusched.policies.tree import QueueNode, Tree
from gpusched.scheduler.access.model import Role
from gpusched.scheduler.queues import parse_queues, write_queues
from gpusched.scheduler.queues.access import Submitter, may_submit

LAB = """\
queues:
- name: lab
  access: {submit: [group:staff, role:operator]}
- {name: nlp, parent: lab}
- name: prod
  parent: lab
  access: {submit: [user:ann, bob]}
- {name: closed, access: {submit: []}}
- name: open
"""


def test_a_list_is_inherited_and_the_nearest_counts():
    tree = parse_queues(LAB, file="queues.yaml")
    assert tree.submitters("nlp") == ("lab", ("group:staff", "role:operator"))
    assert tree.submitters("prod") == ("prod", ("ann", "bob"))
    assert tree.submitters("closed") == ("closed", ())
    assert tree.submitters("open") is None
    assert parse_queues(write_queues(tree), file="again") == tree


@pytest.mark.parametrize(
    ("value", "column", "words"),
    [
        ("ann", 20, "must be a list of who may, not ann"),
        ("[ann, 7]", 26, "`7` is nobody"),
        ("[team:x]", 21, "`team:x` is nobody"),
        ("[role:amin]", 21, "there is no role amin"),
        ("[ann, user:ann]", 26, "ann is named twice"),
    ],
)
def test_a_fault_in_a_list_is_told_with_its_line_and_key(value, column, words):
    with pytest.raises(SpecError) as raised:
        parse_queues(f"queues:\n- name: prod\n  access: {{submit: {value}}}\n", file="q.yaml")
    (problem,) = raised.value.problems
    assert (problem.line, problem.column) == (3, column)
    assert problem.key.startswith("queues[0].access.submit")
    assert problem.message.startswith(words)


def test_an_unknown_key_of_access_is_told_what_was_meant():
    with pytest.raises(SpecError, match=r"access\.submitt: unknown key .*did you mean `submit`"):
        parse_queues("queues:\n- name: prod\n  access: {submitt: []}\n", file="q.yaml")


@given(
    lists=st.lists(st.none() | st.lists(st.sampled_from(["ann", "group:g", "role:user", "role:operator"]), unique=True),
                   min_size=1, max_size=4),
    role=st.sampled_from(list(Role)),
    name=st.sampled_from(["ann", "bob"]),
    groups=st.sampled_from([(), ("g",), ("h",)]),
)  # fmt: skip
def test_who_may_submit_is_what_the_nearest_list_says(lists, role, name, groups):
    nodes = [
        QueueNode(f"q{depth}", f"q{depth - 1}" if depth else "", submitters=None if listed is None else tuple(listed))
        for depth, listed in enumerate(lists)
    ]
    nearest = next((listed for listed in reversed(lists) if listed is not None), None)
    expected = (
        nearest is None
        or role is Role.ADMIN
        or name in nearest
        or ("group:g" in nearest and "g" in groups)
        or ("role:user" in nearest and role is not Role.VIEWER)
        or ("role:operator" in nearest and role in {Role.OPERATOR, Role.ADMIN})
    )
    assert may_submit(Tree(tuple(nodes)), f"q{len(nodes) - 1}", Submitter(name, role, groups)) == expected


def submit(plane, token, queue, **more):
    return plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("sleep 60", queue=queue, **more)}]}, token=token)


def test_who_is_not_on_the_list_is_told_who_is_and_where_else_to_go(plane):
    bob, eve, sam = let_in(plane, "bob"), let_in(plane, "eve"), let_in(plane, "sam", groups=["staff"])
    oper = let_in(plane, "olga", "operator")
    assert plane.post("/v1/queues", {"text": LAB}).status == 200
    reply = submit(plane, eve, "prod")
    assert (reply.status, reply.json["error"]["code"]) == (403, "not_allowed")
    assert reply.json["error"]["message"] == "eve may not submit to queue prod: ann, bob and admins may"
    assert reply.json["error"]["hint"] == "you may submit to open"
    assert submit(plane, eve, "nlp").json["error"]["message"] == (
        "eve may not submit to queue nlp: group staff, role operator and admins may, as queue lab above it says"
    )
    assert submit(plane, eve, "closed").json["error"]["message"].endswith("admins alone may")
    dry = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text(queue="prod")}], "dry_run": True}, token=eve)
    assert dry.status == 403
    assert [submit(plane, token, queue).status for token, queue in ((bob, "prod"), (sam, "nlp"), (eve, "open"))] == [
        201, 201, 201,
    ]  # fmt: skip
    assert submit(plane, sam, "prod").status == 403
    # Whose job it is counts, not who brings it; an admin may always.
    assert submit(plane, oper, "prod").status == 403
    assert submit(plane, oper, "prod", user="bob").status == 201
    assert submit(plane, oper, "nlp", user="eve").status == 403
    assert submit(plane, plane.server.token, "closed").status == 201
    rows = {row["name"]: row["submit"] for row in plane.get("/v1/queues").json["queues"]}
    assert rows == {"lab": ["group:staff", "role:operator"], "nlp": ["group:staff", "role:operator"],
                    "prod": ["ann", "bob"], "closed": [], "open": None}  # fmt: skip


def test_a_job_of_a_queue_that_was_closed_runs_on_and_is_not_requeued_by_its_owner(plane):
    eve = let_in(plane, "eve")
    job = submit(plane, eve, "open").json["jobs"][0]["id"]
    plane.wait(job, until_state="running")
    assert plane.post("/v1/queues", {"text": "queues: [{name: open, access: {submit: [ann]}}]"}).status == 200
    reply = plane.post(f"/v1/jobs/{job}/requeue", token=eve)
    assert (reply.status, plane.job(job)["state"]) == (403, "RUNNING")
    assert plane.post(f"/v1/jobs/{job}/requeue").status == 200
