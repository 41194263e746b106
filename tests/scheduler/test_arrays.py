"""Arrays: one row for many tasks, at most so many at once, one request for all of them, whole again after a restart."""

from __future__ import annotations

import time

import pytest
from live_kit import NODES, spec_text, until

from gpusched.cluster.clock import VirtualClock
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.arrays import ArrayError, Tasks, parse_array
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, Shape, State
from gpusched.policies.catalog import load
from gpusched.scheduler.arrays import WINDOW
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.inbox import LiveInbox
from gpusched.scheduler.settings import Limits
from gpusched.scheduler.store import MemoryStore
from gpusched.scheduler.store.sql import SqlStore

# Indices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indices", "limit"),
    [
        ("0-3", [0, 1, 2, 3], 0),
        ("0-99%8", list(range(100)), 8),
        ("1,4,7", [1, 4, 7], 0),
        ("0-10:5", [0, 5, 10], 0),
        ("3, 10-12 % 2", [3, 10, 11, 12], 2),
    ],
)
def test_indices_are_read_as_slurm_writes_them(text, indices, limit):
    found = parse_array(text)
    assert [found.index(number) for number in range(found.count)] == indices
    assert found.limit == limit
    assert all(map(found.has, indices))
    assert not found.has(10**6)


@pytest.mark.parametrize("text", ["", "a", "5-1", "0-9%0", "0-9%", "1,1", "0-5,3-9", "-1", "0-99999999", "1,,2"])
def test_what_is_no_set_of_indices_is_refused(text):
    with pytest.raises(ArrayError):
        parse_array(text)


# In the engine ------------------------------------------------------------------------------------------------------


class Bench:
    """The real engine and a simulated cluster of eight GPUs in virtual time; each task runs a minute."""

    def __init__(self, store=None, backend=None) -> None:
        self.store = store or MemoryStore()
        self.clock = VirtualClock()
        self.inbox = LiveInbox(self.clock.now, lambda: None)
        self.backend = backend or SimulatedBackend(NODES)
        self.engine = Engine(store=self.store, backend=self.backend, policy=load("fifo"), inbox=self.inbox)
        self.most = 0

    def submit(self, text: str, **keys) -> Job:
        job = Job(0, Shape(gpus=1), 0.0, name="sweep", user="ann", **keys)
        job.tasks = Tasks(text)
        future = self.inbox.submit([job])
        for number in range(job.id + 1, job.id + 1 + job.tasks.count):
            self.backend.expect(number, 60.0)
        self.engine.tick(self.clock.now())
        assert future.result(0)[0] is job
        return job

    def run(self, until_time: float = float("inf")) -> None:
        while (due := self.engine.next_time()) is not None and due <= until_time:
            self.clock.wait(due)
            self.engine.tick(self.clock.now())
            self.most = max(self.most, len(self.engine.jobs))

    def ask(self, kind: Kind, number: int) -> None:
        future = self.inbox.ask(kind, number)
        self.engine.tick(self.clock.now())
        future.result(0)


def test_every_task_runs_once_and_the_array_ends_with_the_last():
    bench = Bench()
    array = bench.submit("0-99")
    bench.run()
    assert array.state is State.SUCCEEDED
    assert bench.clock.now() == pytest.approx(60.0 * 13)
    tasks = [job for job in bench.store.jobs.values() if job.array_index is not None]
    assert sorted(job.array_index for job in tasks) == list(range(100))
    assert {job.state for job in tasks} == {State.SUCCEEDED}
    assert bench.engine.jobs == {}
    assert bench.engine.arrays.jobs == bench.engine.arrays.live == {}
    kinds = [event.kind for event in bench.store.journal if event.job == array.id]
    assert kinds == [Kind.SUBMITTED, Kind.STARTED, Kind.SUCCEEDED]


def test_no_more_run_at_once_than_the_limit_says():
    bench = Bench()
    bench.submit("0-29%3")
    bench.run()
    assert bench.most == 3
    assert bench.clock.now() == pytest.approx(600.0)


def test_a_large_array_takes_a_window_of_jobs_and_numbers_of_its_own():
    bench = Bench()
    began = time.perf_counter()
    array = bench.submit("0-19999")
    assert time.perf_counter() - began < 2.0
    later = bench.submit("0-1")
    assert later.id == array.id + 20_001
    bench.run(until_time=120.0)
    assert bench.most <= WINDOW + 8 + 2
    bench.ask(Kind.CANCELLED, array.id)
    bench.run(until_time=1000.0)
    assert array.state is State.CANCELLED
    assert later.state is State.SUCCEEDED
    assert bench.engine.jobs == {}


def test_an_array_is_held_released_requeued_and_cancelled_as_one():
    bench = Bench()
    array = bench.submit("0-19")
    bench.ask(Kind.HELD, array.id)
    bench.run(until_time=90.0)
    assert array.state is State.HELD
    assert array.tasks.states == {State.SUCCEEDED: 8, State.HELD: 12}
    bench.ask(Kind.RELEASED, array.id)
    bench.run(until_time=100.0)
    assert array.state is State.RUNNING
    assert array.tasks.states[State.STARTING] + array.tasks.states[State.RUNNING] == 8
    bench.ask(Kind.PREEMPTED, array.id)
    bench.run(until_time=110.0)
    assert sum(event.kind is Kind.PREEMPTED for event in bench.store.journal) == 8
    bench.ask(Kind.CANCELLED, array.id)
    bench.run()
    assert array.state is State.CANCELLED
    assert array.tasks.states == {State.SUCCEEDED: 8, State.CANCELLED: 12}


def test_a_restart_goes_on_with_the_tasks_that_are_left(tmp_path):
    path = str(tmp_path / "jobs.db")
    first = Bench(SqlStore(path))
    array = first.submit("0-2499%40")
    first.run(until_time=150.0)
    made = array.tasks.made
    assert 8 < made < 2500
    first.store.close()
    again = Bench(SqlStore(path), backend=first.backend)
    jobs = again.store.unfinished()
    again.engine.recover(jobs, again.store.known_nodes(), 150.0)
    last = again.store.last_job_id()
    assert last == array.id + 2500
    (known,) = again.engine.arrays.jobs.values()
    assert (known.tasks.made, known.tasks.live) == (made, array.tasks.live)
    again.store.close()


# Over HTTP ----------------------------------------------------------------------------------------------------------


def test_an_array_is_one_row_with_its_progress_and_each_task_has_its_index(plane):
    array = plane.submit('test "$GPUSCHED_ARRAY_INDEX" != 3', array="0-5", gpus=1)
    plane.wait(array["id"])
    (row,) = plane.get("/v1/jobs?all=1").json["jobs"]
    assert (row["id"], row["state"]) == (array["id"], "FAILED")
    assert (row["array"]["succeeded"], row["array"]["failed"], row["array"]["waiting"]) == (5, 1, 0)
    assert "5 of 6 tasks done, 1 failed" in row["message"]
    tasks = plane.get(f"/v1/jobs?all=1&array={array['id']}").json["jobs"]
    assert [task["array_index"] for task in tasks] == list(range(6))
    assert plane.job(f"{array['id']}_3")["state"] == "FAILED"
    assert plane.job(f"{array['id']}[2]")["state"] == "SUCCEEDED"
    assert plane.get(f"/v1/jobs/{array['id']}_9").status == 404
    assert plane.submit("true", gpus=1)["id"] == array["id"] + 7


def test_twenty_thousand_tasks_are_taken_at_once_and_others_go_on(plane):
    began = time.monotonic()
    array = plane.submit("sleep 60", array="0-19999", gpus=4)
    assert time.monotonic() - began < 5.0
    other = plane.submit("true", gpus=0, priority=100)
    plane.wait(other["id"])
    until(lambda: plane.job(array["id"])["array"]["running"] == 2)
    said = plane.get(f"/v1/jobs/{array['id']}/explain").json
    assert said["state"] == "QUEUED"
    assert said["reasons"]
    reply = plane.get(f"/v1/jobs/{array['id']}_19999").json["error"]
    assert "not in line yet" in reply["message"]
    assert plane.post(f"/v1/jobs/{array['id']}/cancel").json["job"]["state"] == "STOPPING"
    until(lambda: plane.job(array["id"])["state"] == "CANCELLED")


def test_an_array_beyond_the_limit_is_refused_with_the_setting_that_says_so(plane_in):
    plane = plane_in(limits=Limits(array=100, waiting_per_user=50))
    body = {"jobs": [{"spec": spec_text("true", array="0-100")}]}
    reply = plane.post("/v1/jobs", body)
    assert (reply.status, "limits.array" in reply.json["error"]["hint"]) == (400, True)
    assert plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("true", array="0-59")}]}).status == 400
    assert plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("true", array="0-39")}], "hold": True}).status == 201
    assert plane.post("/v1/jobs", {"jobs": [{"spec": spec_text("true", array="0-39")}]}).status == 429
