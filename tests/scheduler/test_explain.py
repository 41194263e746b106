"""Why a job waits, in numbers of the present cluster, and what would help."""

# ruff: noqa: S105, ARG002 - "token" is what a reason is called; signatures are the protocol's

import math

import pytest

from gpusched.cluster.backend import Node, NodeChange
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape, State
from gpusched.policies.catalog import load
from gpusched.scheduler.admission import foresee, impossible
from gpusched.scheduler.cli.explain import lines
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.explain import explain
from gpusched.scheduler.store import MemoryStore

GIB = 1 << 30


class Asked:
    """An inbox of requests given beforehand."""

    def __init__(self):
        self.events = []

    def poll(self, now):
        events, self.events = self.events, []
        return events

    def next_time(self):
        return None

    def settle(self, refused):
        assert not refused


class World:
    """An engine with some nodes, and jobs that were submitted to it."""

    def __init__(self, nodes, policy="binpack"):
        self.inbox, self.backend = Asked(), SimulatedBackend(nodes)
        self.engine = Engine(store=MemoryStore(), backend=self.backend, policy=load(policy), inbox=self.inbox)
        self.now = 0.0
        self.engine.tick(0.0)

    def submit(self, shape, *, runs=math.inf, **keys):
        job = Job(max(self.engine.jobs, default=0) + 1, shape, self.now, **keys)
        self.backend.expect(job.id, runs)
        self.inbox.events.append(Event(self.now, Kind.SUBMITTED, job.id, 0, job))
        self.engine.tick(self.now)
        return job

    def why(self, job):
        return [(reason.token.value, reason.message) for reason in explain(self.engine, job, self.now).reasons]


def cluster(*sizes, kind="H100"):
    return [Node(f"n{i}", gpus, kind, cpu_milli=64_000, memory=512 * GIB) for i, gpus in enumerate(sizes)]


def test_a_gang_that_is_too_wide_for_now_is_told_what_is_free_and_in_which_pieces():
    world = World(cluster(8, 8, 8))
    for taken in (4, 4, 5):
        world.submit(Shape(1, taken, gpu_types=("H100",)))
    job = world.submit(Shape(2, 8, gpu_types=("H100",)))
    [(token, words)] = world.why(job)
    assert token == "InsufficientGPUs"
    assert words == "needs 2x8 H100; free 11 in pieces 8+3; largest free block 8"


def test_enough_gpus_in_the_wrong_pieces_are_called_fragmented():
    world = World(cluster(8, 8, 8), policy="arrival+spread+skip")
    for taken in (4, 4, 5):
        world.submit(Shape(1, taken))
    job = world.submit(Shape(1, 8))
    assert world.why(job) == [("Fragmented", "needs 8 GPUs; free 11 in pieces 4+4+3; largest free block 4")]


def test_a_busy_type_is_told_apart_from_a_busy_cluster():
    world = World([*cluster(4), Node("a0", 8, "A100", cpu_milli=64_000)])
    world.submit(Shape(1, 4, gpu_types=("H100",)))
    job = world.submit(Shape(1, 2, gpu_types=("H100",)))
    assert world.why(job) == [("GpuTypeBusy", "needs 2 H100; free 0 of that type, 8 of others")]
    assert ("any GPU type", "would start now") in explain(world.engine, job, 0.0).suggestions


def test_cpus_that_are_gone_are_named_although_gpus_are_free():
    world = World(cluster(8))
    world.submit(Shape(1, 1, cpu_milli=60_000))
    job = world.submit(Shape(1, 2, cpu_milli=8_000))
    [(token, words)] = world.why(job)
    assert token == "InsufficientCPUs"
    assert words == "needs 2 GPUs with 8 CPUs on one node; the most free on a node with enough GPUs free is 4"
    assert explain(world.engine, job, 0.0).suggestions == [("1 CPU per node", "would start now")]


def test_memory_that_is_gone_is_named_with_its_unit():
    world = World(cluster(8))
    world.submit(Shape(1, 1, memory=500 * GIB))
    job = world.submit(Shape(1, 2, memory=64 * GIB))
    assert world.why(job) == [
        ("InsufficientMemory", "needs 2 GPUs with 64GiB of memory on one node; the most free is 12GiB")
    ]


def test_a_job_behind_another_is_told_whom_it_waits_for_and_what_it_lacks_itself():
    world = World(cluster(8), policy="fifo")
    world.submit(Shape(1, 6))
    head = world.submit(Shape(1, 8), name="head", user="ann")
    small = world.submit(Shape(1, 1))
    assert world.why(small) == [("Priority", "waits behind job 2 (head) of ann, which needs 8 GPUs")]
    large = world.submit(Shape(1, 4))
    assert [token for token, _ in world.why(large)] == ["Priority", "InsufficientGPUs"]
    said = explain(world.engine, large, 0.0)
    assert (said.position, [job.id for job in said.ahead]) == (3, [head.id, small.id])


def test_what_can_never_be_is_told_before_that_it_is_held():
    world = World(cluster(8))
    job = world.submit(Shape(1, 16), state=State.HELD)
    assert [token for token, _ in world.why(job)] == ["Infeasible", "Held"]
    assert world.why(job)[0][1] == "needs 16 GPUs; the largest node has 8"


def test_a_job_without_gpus_is_told_once_what_no_node_has():
    world = World([Node("n0", 2, cpu_milli=2000, memory=16160075367)])
    assert world.why(world.submit(Shape(1, 0, cpu_milli=1000, memory=64 * GIB))) == [
        ("Infeasible", "needs 1 CPU and 64GiB of memory; the largest node has 15.1GiB of memory")
    ]
    assert world.why(world.submit(Shape(1, 0, cpu_milli=8000))) == [
        ("Infeasible", "needs 8 CPUs; the largest node has 2 CPUs")
    ]


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("Infeasible", "never, as long as the cluster stays as it is"),
        ("Held", "not before it is released"),
        ("NodesDraining", "not before these nodes take work again"),
        ("InsufficientGPUs", "not known, as too little is known of how long the others run"),
    ],
)
def test_a_start_that_cannot_be_estimated_is_told_with_what_prevents_it(token, words):
    said = {"job": 1, "name": "a", "state": "QUEUED", "reasons": [{"token": token, "message": "x"}], "eta": None}
    assert f"expected to start: {words}" in list(lines(said, 0.0))


def test_suggestions_are_tried_on_the_real_policy_and_leave_no_trace():
    world = World(cluster(8, 8))
    world.submit(Shape(1, 4))
    world.submit(Shape(1, 8))
    job = world.submit(Shape(2, 8))
    free = list(world.engine.pool.free)
    said = explain(world.engine, job, 0.0)
    assert said.suggestions == [("2 GPUs per node", "would start now"), ("1 GPU per node", "would start now")]
    assert list(world.engine.pool.free) == free
    assert [waiting.id for waiting in world.engine.queue.in_order()] == [job.id]
    assert job.shape == Shape(2, 8)


def test_under_strict_fifo_no_smaller_request_is_said_to_start_before_the_head():
    world = World(cluster(8), policy="fifo")
    world.submit(Shape(1, 6))
    world.submit(Shape(1, 8))
    job = world.submit(Shape(1, 4))
    assert explain(world.engine, job, 0.0).suggestions == []


def test_the_start_is_estimated_from_what_the_others_are_expected_to_run():
    world = World(cluster(8))
    world.submit(Shape(1, 6), estimate=600.0)
    world.submit(Shape(1, 2), limit=3600.0)
    job = world.submit(Shape(1, 4))
    eta = explain(world.engine, job, 0.0).eta
    assert eta.time == 600.0
    assert "1 by estimate" in eta.basis
    whole = world.submit(Shape(1, 8), estimate=60.0)
    assert explain(world.engine, whole, 0.0).eta is None  # nobody knows how long job 3 will run


def test_no_estimate_is_made_up_when_nothing_is_known():
    world = World(cluster(8))
    world.submit(Shape(1, 8))
    job = world.submit(Shape(1, 4))
    assert explain(world.engine, job, 0.0).eta is None


def test_an_overdue_job_is_expected_to_end_now_not_in_the_past():
    world = World(cluster(8))
    world.submit(Shape(1, 8), estimate=10.0)
    world.now = 100.0
    job = world.submit(Shape(1, 8))
    assert explain(world.engine, job, 100.0).eta.time == 100.0


def test_jobs_ahead_are_counted_in_before_a_start_is_estimated():
    world = World(cluster(8))
    world.submit(Shape(1, 8), estimate=100.0)
    world.submit(Shape(1, 8), estimate=50.0)
    job = world.submit(Shape(1, 8))
    assert explain(world.engine, job, 0.0).eta.time == 150.0


def test_shared_gpus_count_as_what_is_left_of_them():
    world = World(cluster(1))
    world.submit(Shape(1, 0, gpu_milli=700))
    job = world.submit(Shape(1, 0, gpu_milli=500))
    [(token, words)] = world.why(job)
    assert words.startswith("needs 0.5 GPU; free 0.3")
    assert token in {"InsufficientGPUs", "Fragmented"}


@pytest.mark.parametrize("policy", ["fifo", "binpack", "gang"])
def test_a_dry_run_decides_as_the_policy_then_does(policy):
    world = World(cluster(8, 8), policy=policy)
    world.submit(Shape(1, 6))
    for shape in (Shape(1, 8), Shape(1, 4), Shape(2, 2), Shape(1, 2), Shape(2, 8)):
        [verdict] = foresee(world.engine, [Job(0, shape, 0.0)], 0.0)
        job = world.submit(shape)
        assert (verdict.verdict == "start") == (job.state is not State.QUEUED), (policy, shape)


def test_a_dry_run_of_several_jobs_counts_them_together():
    world = World(cluster(8))
    verdicts = foresee(world.engine, [Job(0, Shape(1, 6), 0.0), Job(0, Shape(1, 6), 0.0)], 0.0)
    assert [verdict.verdict for verdict in verdicts] == ["start", "wait"]
    assert world.engine.pool.free_gpus == 8
    assert not world.engine.jobs


def test_a_node_that_is_away_makes_a_job_wait_not_impossible():
    world = World(cluster(8, 8))
    world.backend._nodes = (NodeChange(0.0, Node("n1", 8, "H100", schedulable=False, why="no heartbeat")),)
    world.engine.tick(0.0)
    shape = Shape(2, 8)
    assert impossible(world.engine, {shape}) == {shape: ""}
    job = world.submit(shape)
    [(token, words)] = world.why(job)[:1]
    assert token == "NodesUnhealthy"
    assert words == "needs 2x8 GPUs, which this cluster could hold, but not now: n1 (no heartbeat)"
