"""The live loop survives what goes wrong around it: a bad policy, a locked or full database, a restart, a rival."""

# ruff: noqa: ARG002 - signatures are those of policies and backends

import logging
import sqlite3

import pytest
from live_kit import NODES, Plane, spec_text, until
from local_backend import LocalBackend

from gpusched.cluster.backend import Node
from gpusched.jobs.job import Job, Piece, Shape
from gpusched.policies.greedy import Greedy
from gpusched.policies.named.basic import fifo
from gpusched.policies.plan import Plan, Start
from gpusched.scheduler.controller import Controller
from gpusched.scheduler.store.sql import SqlStore


class Raises(Greedy):
    name = "raises"

    def plan(self, now, queue, pool):
        raise ZeroDivisionError("mine")


class Halves(Greedy):
    """Starts half a gang."""

    name = "halves"

    def plan(self, now, queue, pool):
        job = next(queue.in_order())
        return Plan([Start(job, (Piece(0, job.shape.gpus),))])


class Overfills(Greedy):
    """Gives the same GPUs to everybody."""

    name = "overfills"

    def plan(self, now, queue, pool):
        return Plan([Start(job, (Piece(0, 4),)) for job in queue.in_order()])


class Says(Greedy):
    """Answers with something that is no plan."""

    name = "says"

    def plan(self, now, queue, pool):
        return "yes"


class Orders(Greedy):
    """Orders jobs by things that cannot be compared."""

    name = "orders"

    def order(self, job):
        return (job.id if job.id % 2 else str(job.id),)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Raises, "plan() raised ZeroDivisionError: mine"),
        (Halves, "starts job 1 (2x4 GPU) in part"),
        (Overfills, "does not fit node n1 as planned"),
        (Says, "its plan is malformed"),
    ],
)
def test_a_faulty_policy_is_refused_and_named_and_no_request_suffers(plane_in, policy, words, caplog):
    plane = plane_in(policy=policy())
    shapes = [{"gpus": 4, "nodes": 2}] if policy is Halves else [{"gpus": 4}] * 3
    with caplog.at_level(logging.ERROR):
        jobs = [plane.submit("true", **shape) for shape in shapes]
    assert [plane.wait(job["id"])["state"] for job in jobs] == ["SUCCEEDED"] * len(jobs)
    status = plane.get("/v1/status").json["policy"]
    assert (status["name"], status["wanted"]) == ("priority", policy.name)
    assert words in status["error"]
    assert words in caplog.text


def test_another_policy_decides_as_soon_as_it_is_asked_for(plane):
    assert plane.get("/v1/status").json["policy"]["name"] == "binpack"
    reply = plane.post("/v1/policy", {"name": "fair"})
    assert (reply.status, reply.json["policy"]["name"], reply.json["policy"]["error"]) == (200, "fair", "")
    job = plane.submit("true")
    assert plane.wait(job["id"])["state"] == "SUCCEEDED"
    assert plane.store.decisions()[-1][1].policy == "fair/1"


def test_a_policy_that_cannot_be_had_changes_nothing(plane, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from gpusched.policies.greedy import Greedy\nclass Bad(Greedy):\n    def plan(self, *a):\n        1 / 0\n"
    )
    for name, status, words in [
        ("nice", 404, "no policy named 'nice'"),
        (f"{bad}:Bad", 409, "plan() raised ZeroDivisionError"),
        ("", 400, "name must be"),
    ]:
        reply = plane.post("/v1/policy", {"name": name})
        assert reply.status == status
        assert words in reply.json["error"]["message"]
    assert plane.get("/v1/status").json["policy"] == {
        "name": "binpack",
        "version": "1",
        "wanted": "binpack",
        "error": "",
    }


def test_the_last_good_policy_goes_on_when_the_new_one_fails_later(plane, tmp_path):
    first = plane.submit("true")
    plane.wait(first["id"])
    file = tmp_path / "later.py"
    file.write_text(
        "from gpusched.policies.greedy import Greedy\n"
        "class Later(Greedy):\n"
        "    name = 'later'\n"
        "    def plan(self, now, queue, pool):\n"
        "        assert all(job.shape.gpus != 3 for job in queue.in_order()), 'three'\n"
        "        return super().plan(now, queue, pool)\n"
    )
    assert plane.post("/v1/policy", {"name": f"{file}:Later"}).status == 200
    job = plane.submit("true", gpus=3)
    assert plane.wait(job["id"])["state"] == "SUCCEEDED"
    status = plane.get("/v1/status").json["policy"]
    assert (status["name"], status["wanted"]) == ("binpack", "later")
    assert "plan() raised AssertionError: three" in status["error"]


def test_a_policy_that_did_well_for_a_while_gives_way_to_the_one_before_it(plane, tmp_path):
    file = tmp_path / "later.py"
    file.write_text(
        "from gpusched.policies.greedy import Greedy\n"
        "class Later(Greedy):\n"
        "    name = 'later'\n"
        "    def place(self, shape, pool, nodes):\n"
        "        if shape.gpus == 3:\n"
        "            raise SystemExit(3)\n"
        "        return super().place(shape, pool, nodes)\n"
    )
    for name in ("fair", f"{file}:Later"):
        assert plane.post("/v1/policy", {"name": name}).status == 200
    plane.wait(plane.submit("true")["id"])
    assert plane.get("/v1/status").json["policy"]["name"] == "later"
    assert plane.wait(plane.submit("true", gpus=3)["id"])["state"] == "SUCCEEDED"
    status = plane.get("/v1/status").json["policy"]
    assert (status["name"], status["wanted"]) == ("fair", "later")


@pytest.mark.parametrize("method", ["order", "place"])
def test_a_policy_is_tried_with_a_job_though_nobody_waits(plane, tmp_path, method):
    file = tmp_path / "exits.py"
    file.write_text(
        "from gpusched.policies.greedy import Greedy\n"
        "class Exits(Greedy):\n"
        f"    def {method}(self, *_):\n"
        "        raise SystemExit(3)\n"
    )
    reply = plane.post("/v1/policy", {"name": f"{file}:Exits"})
    assert reply.status == 409
    assert f"{method}() raised SystemExit: 3" in reply.json["error"]["message"]
    assert plane.get("/v1/status").json["policy"]["name"] == "binpack"


def test_an_order_that_cannot_be_compared_does_not_stop_the_loop(plane_in):
    plane = plane_in(policy=Orders())
    plane.submit("sleep 60", gpus=4, nodes=2)
    accepted = []
    for _ in range(12):
        reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("true")}]})
        assert reply.status in {201, 500}
        accepted += reply.json.get("jobs", [])
    assert plane.get("/v1/status").json["policy"]["name"] == "priority"
    listed = {job["id"] for job in plane.get("/v1/jobs").json["jobs"]}
    assert {job["id"] for job in accepted} <= listed
    assert plane.submit("true")["state"] == "QUEUED"


def test_a_locked_database_answers_with_an_error_and_works_again_once_it_is_free(plane):
    first = plane.submit("true", flags={"hold": True})
    rival = sqlite3.connect(plane.home / "gpusched.db", isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text()}]})
    assert (reply.status, reply.json["error"]["code"]) == (503, "store")
    assert "is locked" in reply.json["error"]["message"]
    assert [job["id"] for job in plane.get("/v1/jobs").json["jobs"]] == [first["id"]]  # reading goes on
    assert "is locked" in plane.get("/v1/status").json["engine"]["store_error"]
    rival.execute("ROLLBACK")
    second = until(lambda: (found := plane.post("/v1/jobs", {"jobs": [{"spec": spec_text()}]})).status == 201 and found)
    number = second.json["jobs"][0]["id"]
    assert number > first["id"]
    assert plane.wait(number)["state"] == "SUCCEEDED"
    assert plane.get("/v1/status").json["engine"]["store_error"] == ""
    assert len(plane.get("/v1/jobs?all=1").json["jobs"]) == 2
    rival.close()


def test_an_end_that_came_while_nothing_could_be_written_is_not_lost(plane):
    go = plane.home / "go"
    job = plane.submit(f"until test -e {go}; do sleep 0.02; done; exit 5")
    until(lambda: plane.job(job["id"])["state"] == "RUNNING")
    rival = sqlite3.connect(plane.home / "gpusched.db", isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    go.touch()
    until(lambda: plane.controller.figures.store_error)
    rebuilds = plane.controller.figures.rebuilds
    until(lambda: plane.controller.figures.rebuilds > rebuilds)
    rival.execute("ROLLBACK")
    rival.close()
    done = plane.wait(job["id"])
    assert (done["state"], done["exit_code"], done["attempt"]) == ("FAILED", 5, 1)


def test_a_disk_that_is_full_keeps_what_was_accepted_and_says_so(plane):
    before = [plane.submit("true", flags={"hold": True})["id"] for _ in range(3)]
    # SQLite's own limit stands for the disk's: the next page cannot be had.
    real = plane.store.commit

    def full(**parts):
        with plane.store.database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        real(**parts)

    plane.controller.changes._store.commit = full
    big = {"jobs": [{"spec": spec_text("true #" + "x" * 60_000)} for _ in range(5)], "hold": True}
    reply = plane.post("/v1/jobs", big)
    assert (reply.status, reply.json["error"]["code"]) == (503, "store")
    assert "disk full" in reply.json["error"]["message"]
    del plane.controller.changes._store.commit
    with plane.store.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=4294967294")
    after = until(lambda: (found := plane.post("/v1/jobs", big)).status == 201 and found)
    listed = [job["id"] for job in plane.get("/v1/jobs").json["jobs"]]
    assert listed == before + [job["id"] for job in after.json["jobs"]]


def test_a_new_control_plane_goes_on_with_all_that_was_queued_running_and_held(plane_in):
    old = plane_in()
    go = old.home / "go"
    running = old.submit(f"echo started >> {old.home}/runs; until test -e {go}; do sleep 0.02; done", gpus=4, nodes=2)
    queued, held = old.submit("true", gpus=4), old.submit("true", flags={"hold": True})
    until(lambda: old.job(running["id"])["state"] == "RUNNING")
    old.close(jobs_too=False)
    new = plane_in()
    states = {job["id"]: job["state"] for job in new.get("/v1/jobs").json["jobs"]}
    assert states == {running["id"]: "RUNNING", queued["id"]: "QUEUED", held["id"]: "HELD"}
    assert sum(node["free"] for node in new.get("/v1/nodes").json["nodes"]) == 0
    go.touch()
    assert new.wait(running["id"])["attempt"] == 1
    assert new.wait(queued["id"])["state"] == "SUCCEEDED"
    assert (old.home / "runs").read_text() == "started\n" * 2  # one line a rank
    assert new.backend.starts == [(queued["id"], 1)]


def test_a_job_that_ended_while_nobody_looked_is_settled_by_its_exit_code(plane_in):
    old = plane_in()
    job = old.submit("sleep 0.3; exit 7")
    until(lambda: old.job(job["id"])["state"] == "RUNNING")
    old.close(jobs_too=False)
    until((old.home / "cluster" / "1-1-0" / "exit").exists)
    done = plane_in().wait(job["id"])
    assert (done["state"], done["exit_code"]) == ("FAILED", 7)


def test_a_job_that_was_written_as_started_but_never_was_is_placed_anew(plane_in):
    old = plane_in()
    old.backend.start = lambda *_args: None  # killed between the commit and the effect
    job = old.submit("true")
    assert old.job(job["id"])["state"] == "STARTING"
    old.close()
    new = plane_in()
    done = new.wait(job["id"])
    assert (done["state"], done["attempt"]) == ("SUCCEEDED", 2)


def test_a_stop_that_was_written_but_not_done_is_done_after_the_restart(plane_in):
    old = plane_in()
    job = old.submit("sleep 60")
    until(lambda: old.job(job["id"])["state"] == "RUNNING")
    old.backend.stop = lambda *_args: None
    old.post(f"/v1/jobs/{job['id']}/cancel")
    old.close(jobs_too=False)
    assert plane_in().wait(job["id"])["state"] == "CANCELLED"


def test_a_time_limit_holds_across_a_restart(plane_in):
    old = plane_in()
    job = old.submit("sleep 60", max_duration="2s")
    until(lambda: old.job(job["id"])["state"] == "RUNNING")
    old.close(jobs_too=False)
    assert plane_in().wait(job["id"])["state"] == "TIMEOUT"


def test_a_cordon_outlives_the_control_plane(plane_in):
    old = plane_in()
    old.post("/v1/nodes/n2/cordon", {"reason": "fans"})
    old.close()
    new = plane_in()
    assert [node["state"] for node in new.get("/v1/nodes").json["nodes"]] == ["up", "cordoned"]
    assert new.submit("true", gpus=4, nodes=2)["state"] == "QUEUED"


def test_a_node_that_went_away_for_good_is_known_to_be_gone(plane_in):
    plane_in().close()
    new = plane_in(nodes=NODES[:1])
    assert [node["name"] for node in new.get("/v1/nodes").json["nodes"]] == ["n1"]
    gone = new.get("/v1/nodes?gone=1").json["nodes"][1]
    assert (gone["name"], gone["state"]) == ("n2", "gone")


def test_a_gang_whose_node_vanishes_is_queued_again_by_its_retry_rule(plane):
    job = plane.submit("sleep 60", gpus=4, nodes=2, retry={"limit": 1, "on": ["lost"]})
    until(lambda: plane.job(job["id"])["state"] == "RUNNING")
    plane.backend.vanish(job["id"], 1)
    until(lambda: plane.job(job["id"])["attempt"] == 2)
    until(lambda: plane.job(job["id"])["state"] == "RUNNING")
    plane.backend.vanish(job["id"], 2)
    done = plane.wait(job["id"])
    assert (done["state"], done["message"]) == ("LOST", "its node went away")


def test_while_another_control_plane_leads_this_one_stands_by_and_says_who(plane_in, tmp_path):
    leader = plane_in()
    leader.submit("true", flags={"hold": True})
    rival = Plane(tmp_path / "rival", nodes=(), database=str(leader.home / "gpusched.db"))
    try:
        until(lambda: rival.controller.figures.standby)
        status = rival.get("/v1/status").json
        assert status["leader"] is False
        assert "process" in status["standby"]
        reply = rival.post("/v1/jobs", {"jobs": [{"spec": spec_text()}]})
        assert (reply.status, reply.json["error"]["code"]) == (503, "lease_held")
        assert len(rival.get("/v1/jobs").json["jobs"]) == 1  # reading needs no lease
        leader.controller.stop()
        rival.controller.wake()
        until(lambda: rival.controller.figures.leader)
        assert rival.submit("true", flags={"hold": True})["id"] == 2
    finally:
        rival.close()


def test_who_lost_the_lease_writes_nothing_more(plane):
    with plane.store.database.write() as connection:  # as another control plane takes it
        connection.exec_driver_sql(
            "UPDATE leases SET owner = 'thief', term = term + 1, ttl = 1000, url = 'http://thief'"
        )
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text()}]})
    assert reply.status == 503
    assert "lost its lease" in reply.json["error"]["message"]
    until(lambda: plane.controller.figures.standby)
    assert plane.post("/v1/jobs", {"jobs": [{"spec": spec_text()}]}).json["error"]["leader"] == "http://thief"
    assert plane.get("/v1/jobs").json["jobs"] == []


def test_a_node_that_shrank_under_a_running_job_takes_nothing_until_it_ends(plane_in):
    plane = plane_in()
    go = plane.home / "go"
    job = plane.submit(f"until test -e {go}; do sleep 0.02; done", gpus=4, nodes=2)
    until(lambda: plane.job(job["id"])["state"] == "RUNNING")
    plane.backend.change(Node("n1", 2, "H100", cpu_milli=16_000))
    until(lambda: plane.get("/v1/nodes").json["nodes"][0]["gpus"] == 2)
    plane.close(jobs_too=False)
    new = plane_in(nodes=(Node("n1", 2, "H100", cpu_milli=16_000), NODES[1]))
    assert new.job(job["id"])["state"] == "RUNNING"
    waiting = new.submit("true", gpus=1)
    assert waiting["state"] == "QUEUED"
    go.touch()
    assert new.wait(waiting["id"])["state"] == "SUCCEEDED"
    assert [node["free"] for node in new.get("/v1/nodes").json["nodes"]] == [2.0, 4.0]


def test_a_loop_that_fails_for_an_unknown_reason_goes_on_from_the_store(plane, caplog):
    held = plane.submit("true", flags={"hold": True})
    poll, broken = plane.backend.poll, [True]

    def once(now):
        if broken:
            broken.clear()
            raise RuntimeError("nobody foresaw this")
        return poll(now)

    plane.backend.poll = once
    plane.controller.wake()
    until(lambda: plane.controller.figures.rebuilds == 2)
    assert "nobody foresaw this" in caplog.text
    assert plane.post(f"/v1/jobs/{held['id']}/release").status == 200
    assert plane.wait(held["id"])["state"] == "SUCCEEDED"
    assert plane.get("/v1/status").json["policy"]["name"] == "binpack"


def test_a_loop_that_never_works_gives_up_and_says_why(plane_in, tmp_path):
    plane = plane_in()
    plane.close()

    class Broken(LocalBackend):
        def poll(self, now):
            raise RuntimeError("for good")

    ended = []
    store = SqlStore(str(tmp_path / "other.db"))
    (tmp_path / "cluster").mkdir()
    backend = Broken(tmp_path / "cluster", ())
    controller = Controller(store, backend, fifo(), on_end=ended.append)
    controller.start()
    until(lambda: ended)
    assert "for good" in ended[0]
    with pytest.raises(Exception, match="stopping"):
        controller.inbox.submit([Job(0, Shape(), 0.0)]).result(5)
    backend.close()
    store.close()


def test_at_rest_the_loop_turns_only_to_renew_its_lease(plane):
    until(lambda: plane.controller.figures.ticks)
    before = plane.controller.figures.ticks
    until(lambda: plane.controller.figures.ticks > before, within=30)
    renewals = plane.controller.figures.ticks
    assert renewals - before <= 2
    assert plane.controller.lease.ttl / 3 >= 5
