"""Queues over HTTP: applied and versioned, kept over a restart, obeyed at submit and by whatever policy decides."""

from __future__ import annotations

import json

import pytest
from live_kit import Plane, spec_text, until

from gpusched.jobs.spec import JobSpec

LAB = """
# ours
default_queue: chat
queues:
  - name: lab
  - name: nlp
    parent: lab
    nominal_quota: 5
    limits: {per_user: {gpus: 3}, per_job: {gpus: 4}}
    priority: {max: 60}
  - name: chat
    parent: lab
    nominal_quota: 3
"""
WITHOUT_NLP = "default_queue: chat\nqueues: [{name: lab}, {name: chat, parent: lab, nominal_quota: 3}]\n"
PAUSED = LAB.replace("name: chat\n", "name: chat\n    paused: true\n")


def applied(plane, text, **more):
    reply = plane.post("/v1/queues", {"text": text, "file": "queues.yaml", "user": "root", **more})
    assert reply.status == 200, reply.body
    return reply.json


def refused(plane, path, body, status):
    reply = plane.post(path, body)
    assert reply.status == status, reply.body
    return reply.json["error"]


def try_submit(plane, status, **keys):
    return refused(plane, "/v1/jobs", {"jobs": [{"spec": spec_text("sleep 60", **keys)}]}, status)


def reason(plane, job):
    return plane.get(f"/v1/jobs/{job['id']}").json["reason"]


def test_without_queues_any_name_will_do(plane):
    assert plane.submit(queue="whatever")["queue"] == "whatever"
    found = plane.get("/v1/queues").json
    assert (found["configured"], found["version"]) == (False, 0)
    assert plane.get("/v1/queue-file").status == 404
    assert plane.get("/v1/queue-versions").json == {"versions": []}


def test_an_applied_file_is_a_version_with_its_text_its_time_and_who(plane):
    first = applied(plane, LAB)
    assert (first["version"], first["written"]) == (1, True)
    assert [change["text"].split(":")[0] for change in first["changes"]] == [
        "~ default_queue",
        "+ queue lab",
        "+ queue nlp",
        "+ queue chat",
    ]
    again = applied(plane, LAB)
    assert (again["version"], again["written"], again["changes"]) == (1, False, [])
    assert applied(plane, f"{LAB}# only a comment\n")["version"] == 2
    (newest, oldest) = plane.get("/v1/queue-versions").json["versions"]
    assert (newest["version"], oldest["version"], oldest["user"], oldest["file"]) == (2, 1, "root", "queues.yaml")
    assert plane.get("/v1/queue-file?version=1").json["text"] == LAB
    assert applied(plane, plane.get("/v1/queue-file").json["yaml"])["changes"] == []


def test_a_dry_run_changes_nothing(plane):
    assert applied(plane, LAB, dry_run=True)["changes"]
    assert plane.get("/v1/queues").json["configured"] is False


def test_a_file_with_faults_is_refused_whole_with_every_problem(plane):
    applied(plane, LAB)
    error = refused(plane, "/v1/queues", {"text": "queues:\n- name: a\n  weight: -1\n- name: a\n", "file": "f"}, 422)
    assert error["code"] == "invalid_spec"
    assert [(one["file"], one["line"], one["key"]) for one in error["problems"]] == [
        ("f", 3, "queues[0].weight"),
        ("f", 4, "queues[1].name"),
    ]
    assert plane.get("/v1/queues").json["version"] == 1


@pytest.mark.parametrize("body", [{}, {"text": 7}, {"text": LAB, "drain": "yes"}, {"text": LAB, "user": 1}])
def test_a_malformed_request_is_refused(plane, body):
    assert refused(plane, "/v1/queues", body, 400)["code"] == "bad_request"


def test_a_job_goes_to_the_queue_that_it_means(plane):
    applied(plane, LAB)
    assert plane.submit(queue="nlp")["queue"] == "nlp"
    assert plane.submit()["queue"] == "chat"
    assert plane.get("/v1/jobs/1").json["priority"] == 50
    plane.submit(queue="nlp", priority=90)
    assert plane.get("/v1/jobs/3").json["priority"] == 60


def test_a_job_for_no_queue_is_refused_with_those_that_there_are(plane):
    applied(plane, LAB)
    error = try_submit(plane, 404, queue="nlpp")
    assert error["message"] == "there is no queue 'nlpp'"
    assert error["hint"] == "did you mean nlp? The queues that take jobs are nlp, chat"
    assert try_submit(plane, 404, queue="lab")["message"] == "queue lab takes no jobs: it has queues below it"
    assert plane.get("/v1/jobs?all=1").json["jobs"] == []


def test_a_job_that_names_no_queue_where_none_is_the_default_is_refused(plane):
    applied(plane, "queues: [{name: a}]")
    assert try_submit(plane, 404)["message"] == "the job names no queue, and there is no default one"


def test_what_a_queue_could_never_give_is_refused_unless_it_is_queued_anyway(plane):
    applied(plane, LAB)
    assert "a job in queue nlp may have 4 at most" in try_submit(plane, 422, queue="nlp", gpus=3, nodes=2)["message"]
    own = try_submit(plane, 422, queue="chat", gpus=4)
    assert own["message"] == (
        "asks for 4 GPUs, and queue chat has 3 of its own: to borrow, a job must say `preemptible: true`"
    )
    body = {"jobs": [{"spec": spec_text(queue="chat", gpus=4)}], "queue_anyway": True}
    (job,) = plane.post("/v1/jobs", body).json["jobs"]
    assert until(lambda: reason(plane, job)) == "QuotaExceeded"


def test_a_job_of_a_paused_queue_waits_and_starts_when_the_pause_ends(plane):
    applied(plane, PAUSED)
    job = plane.submit("true")
    assert job["reason"] == "QueuePaused"
    said = plane.get(f"/v1/jobs/{job['id']}/explain").json
    assert said["reasons"][0] | {"token": "QueuePaused", "message": "queue chat is paused"} == said["reasons"][0]
    assert said["decision"]["reason"] == "QueuePaused"
    applied(plane, LAB)
    assert plane.wait(job["id"])["state"] == "SUCCEEDED"


def test_each_limit_of_a_queue_is_explained_in_its_numbers(plane):
    applied(plane, LAB)
    plane.submit("sleep 60", queue="nlp", gpus=2)
    plane.submit("sleep 60", gpus=2)
    of_user = plane.submit("sleep 60", queue="nlp", gpus=2)
    of_quota = plane.submit("sleep 60", gpus=2)
    found = {
        job["id"]: plane.get(f"/v1/jobs/{job['id']}/explain").json["reasons"][0]["message"]
        for job in (of_user, of_quota)
    }
    assert list(found.values()) == [
        "ann holds 2 of the 3 GPUs that a user of queue nlp may hold",
        "queue chat holds 2 GPUs of 3 of its own; to borrow, a job must be preemptible",
    ]


def test_a_queue_with_jobs_is_not_taken_away_unless_it_is_said(plane):
    applied(plane, LAB)
    runs = plane.submit("sleep 60", queue="nlp", gpus=2)
    waits = plane.submit("true", queue="nlp", gpus=2)
    error = refused(plane, "/v1/queues", {"text": WITHOUT_NLP}, 409)
    assert error["message"] == "queue nlp would be gone: 2 jobs (1 waiting, 1 on GPUs)"
    assert "--drain" in error["hint"]
    inner = f"{LAB}  - {{name: below, parent: nlp}}\n"
    assert "would have queues below it" in refused(plane, "/v1/queues", {"text": inner}, 409)["message"]
    assert plane.get("/v1/queues").json["version"] == 1

    done = applied(plane, WITHOUT_NLP, drain=True)
    assert done["displaced"] == {"nlp": {"waiting": 1, "running": 1}}
    until(lambda: reason(plane, waits) == "QueueNotFound")
    assert plane.get(f"/v1/jobs/{runs['id']}").json["state"] == "RUNNING"
    assert plane.get("/v1/queues").json["lost"] == {"nlp": {"waiting": 1, "running": 1}}
    assert applied(plane, f"{WITHOUT_NLP}# again\n")["displaced"] == {}, "they have no queue to lose any more"
    plane.post(f"/v1/jobs/{runs['id']}/cancel")
    applied(plane, LAB)
    assert plane.wait(waits["id"])["state"] == "SUCCEEDED"


def test_the_first_file_counts_jobs_of_any_name(plane):
    plane.submit("sleep 60", queue="old")
    assert "queue old would be gone: 1 job (1 on GPUs)" in refused(plane, "/v1/queues", {"text": LAB}, 409)["message"]
    applied(plane, f"{LAB}  - name: old\n")


def test_quotas_beyond_the_cluster_are_a_warning_and_a_fault_when_strict(plane):
    text = "queues: [{name: a, nominal_quota: {gpus: 12, H100: 9}}]"
    assert applied(plane, text, dry_run=True)["warnings"] == [
        "nominal quotas add up to 9 H100 GPUs, and the cluster has 8",
        "nominal quotas add up to 12 GPUs, and the cluster has 8",
    ]
    assert refused(plane, "/v1/queues", {"text": text, "strict": True}, 422)["code"] == "invalid_spec"
    assert applied(plane, text)["version"] == 1


def test_a_rollback_is_a_new_version_with_the_old_text(plane):
    applied(plane, LAB)
    applied(plane, WITHOUT_NLP)
    assert plane.post("/v1/queue-versions/rollback", {"version": 1}).json["version"] == 3
    newest = plane.get("/v1/queue-versions").json["versions"][0]
    assert (newest["version"], newest["note"], newest["user"]) == (3, "rollback to 1", "ann")
    assert plane.get("/v1/queue-file").json["text"] == LAB
    assert refused(plane, "/v1/queue-versions/rollback", {"version": 9}, 404)["message"] == (
        "there is no version 9 of the queues"
    )
    assert plane.post("/v1/queue-versions/rollback", {"version": 0}).json["version"] == 4
    assert plane.submit(queue="whatever")["queue"] == "whatever"


def test_the_listing_shows_what_each_queue_holds_and_borrows(plane):
    applied(plane, LAB)
    plane.submit("sleep 60", queue="chat", gpus=4, preemptible=True)
    plane.submit("sleep 60", queue="nlp", gpus=1)
    rows = {row["name"]: row for row in plane.get("/v1/queues").json["queues"]}
    assert list(rows) == ["lab", "nlp", "chat"]
    assert rows["chat"]["used"] == {"gpus": 4, "H100": 4}
    assert rows["chat"]["borrowed"] == {"gpus": 1}
    assert rows["lab"]["used"] == {"gpus": 5, "H100": 5}
    assert rows["lab"]["borrowed"] == {}
    assert (rows["lab"]["running"], rows["nlp"]["running"], rows["nlp"]["waiting"]) == (2, 1, 0)
    assert plane.get("/v1/queues/chat").json["queue"] == rows["chat"]
    assert plane.get("/v1/queues/chatt").status == 404


def test_the_queues_hold_after_a_restart_and_without_a_cluster(tmp_path):
    first = Plane(tmp_path / "home", nodes=())
    try:
        applied(first, PAUSED)
        waits = first.submit("true")
    finally:
        first.close()
    second = Plane(tmp_path / "home")
    try:
        assert second.get("/v1/queues").json["version"] == 1
        assert until(lambda: reason(second, waits)) == "QueuePaused"
        assert try_submit(second, 404, queue="nlpp")["code"] == "not_found"
        applied(second, LAB)
        assert second.wait(waits["id"])["state"] == "SUCCEEDED"
    finally:
        second.close()


def test_a_database_that_cannot_be_written_leaves_the_queues_as_they_were(plane):
    applied(plane, LAB)
    with plane.store.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER no BEFORE INSERT ON queue_versions BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    assert plane.post("/v1/queues", {"text": WITHOUT_NLP}).status >= 500
    assert plane.submit(queue="nlp")["queue"] == "nlp"
    assert plane.get("/v1/queues").json["version"] == 1


def test_a_version_that_this_release_cannot_read_stops_the_loop_with_its_reason(tmp_path):
    """Whoever applied it had a newer release: to go on without its quotas would be worse than to wait."""
    first = Plane(tmp_path / "home")
    applied(first, LAB)
    with first.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE queue_versions SET text = 'queues: [{name: a, colour: red}]'")
    first.close()
    second = Plane(tmp_path / "home", nodes=())
    try:
        said = until(lambda: second.get("/v1/status").json["engine"]["store_error"])
        assert "version 1 of the queues cannot be read by this release" in said
        assert "queues[0].colour: unknown key" in said
    finally:
        second.close()


def test_a_dry_run_of_a_job_knows_the_queues(plane):
    applied(plane, LAB)
    body = {"jobs": [{"spec": spec_text(queue="gone")}], "dry_run": True}
    assert plane.post("/v1/jobs", body).status == 404
    body = {"jobs": [{"spec": spec_text(queue="nlp")}], "dry_run": True}
    assert plane.post("/v1/jobs", body).json["verdicts"][0]["verdict"] == "start"


def test_the_routes_of_queues_are_in_the_openapi_document(plane):
    paths = json.loads(plane.get("/v1/openapi.json").body)["paths"]
    assert {"/v1/queues", "/v1/queues/{queue}", "/v1/queue-file", "/v1/queue-versions"} <= paths.keys()


def test_a_job_that_says_no_grace_has_that_of_its_queue_or_of_the_nearest_above_it(plane):
    applied(
        plane,
        LAB.replace("- name: lab\n", "- name: lab\n    grace: 2m\n").replace(
            "- name: nlp\n", "- name: nlp\n    grace: 7s\n"
        ),
    )

    def grace(**keys):
        job = plane.submit(flags={"hold": True}, **keys)
        return plane.get(f"/v1/jobs/{job['id']}").json["spec"]["checkpoint"].get("grace")

    assert grace(queue="nlp") == "7s"
    assert grace(queue="chat") == "2m"
    assert grace(queue="nlp", checkpoint={"grace": "90s"}) == "1m30s"
    with plane.store.reader() as connection:
        stored = connection.exec_driver_sql("SELECT spec FROM jobs ORDER BY id").scalars().all()
    assert [JobSpec.from_store(spec).checkpoint.patience for spec in stored] == [7, 120, 90]
