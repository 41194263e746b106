"""HiveD: a tenant's cells are its own whenever it calls, others run there meanwhile, and no cell is given twice."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from builders import World, cluster, job
from gpusched.cluster.backend import Node
from gpusched.cluster.clock import VirtualClock
from gpusched.cluster.pool import Pool
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.errors import ConflictError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import HOLDING, Job, Shape, State
from gpusched.jobs.spec import read_jobs
from gpusched.policies.catalog import load
from gpusched.policies.cells import Cells, Tenants
from gpusched.policies.plan import Token
from gpusched.policies.tree import QueueNode, Tree
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.queues import parse_queues
from gpusched.scheduler.store import MemoryStore

RACKS = "2x8@rack=a 2x8@rack=b"


def tenants(**cells: dict[str, int]) -> Tree:
    return Tree((*[QueueNode(name, cells=own) for name, own in cells.items()], QueueNode("guest")))


def world(tree: Tree, nodes: str = RACKS) -> World:
    made = World(cluster(nodes), "hived")
    made.engine.use_tree(tree)
    return made


def at(of: World, number: int) -> list[int]:
    return [piece.node for piece in of.jobs[number].placement] if of.jobs[number].state in HOLDING else []


def told(of: World) -> list[int]:
    return [one.id for one in of.jobs.values() if one.state is State.PREEMPTING]


def guests(of: World, count: int, words: str = "8 GPUs, stoppable, queue guest") -> None:
    """Opportunistic jobs, each a minute after the last."""
    for _ in range(count):
        of.tick(at=of.now + 60)
        new = of.submit(job(words))
        of.started(new[0].id)
    of.tick(at=of.now + 60)


def test_others_run_in_a_tenants_cells_and_leave_when_it_calls():
    hive = world(tenants(a={"node": 2}))
    guests(hive, 4)
    assert [at(hive, number) for number in (1, 2, 3, 4)] == [[0], [1], [2], [3]]
    hive.submit(job("8 GPUs, queue a"))
    assert told(hive) == [4], "the one that loses least"
    hive.finished(4, 143)
    assert at(hive, 5) == [3]
    hive.submit(job("8 GPUs, queue a"))
    assert told(hive) == [3]
    hive.finished(3, 143)
    assert at(hive, 6) == [2]
    hive.submit(job("8 GPUs, queue a"))
    assert told(hive) == [], "it has no more cells, and waits for them"
    assert hive.jobs[7].state is State.QUEUED
    hive.check()


def test_beyond_its_cells_a_tenant_runs_opportunistically_if_it_can_be_preempted():
    hive = world(tenants(a={"node": 1}, b={"node": 1}), "2x8")
    hive.submit(job("8 GPUs, queue a, stoppable"))
    hive.started(1)
    hive.tick(at=60.0)
    hive.submit(job("8 GPUs, queue a, stoppable"))
    hive.started(2)
    assert (at(hive, 1), at(hive, 2)) == ([0], [1])
    hive.tick(at=120.0)
    hive.submit(job("8 GPUs, queue b"))
    assert told(hive) == [2], "the first is inside a's cell, the second is in b's"
    hive.finished(2, 143)
    assert at(hive, 3) == [1]


def test_a_job_is_served_by_the_lowest_level_of_which_one_cell_holds_it():
    pool = Pool(cluster(RACKS))
    level = Tenants(pool, tenants(a={"rack": 1, "node": 2, "gpu": 2})).level
    assert level("a", Shape(1, 2)) == "gpu"
    assert level("a", Shape(1, 4)) == "node"
    assert level("a", Shape(2, 4)) == "node"
    assert level("a", Shape(2, 8)) == "rack"
    assert level("a", Shape(3, 8)) == "", "one rack is not enough, and it owns no second"
    assert Tenants(pool, tenants(a={"node": 3})).level("a", Shape(3, 8)) == "node", "several together"
    assert not Tenants(pool, tenants(a={"pod": 3})).level("a", Shape(1, 1)), "no such level here"


def test_cells_are_cut_where_the_cluster_is_broken_up_already():
    """Two machines of b in one rack, so that a's rack is whole when it calls."""
    hive = world(tenants(a={"rack": 1}, b={"node": 2}))
    hive.submit(job("8 GPUs, queue b"), job("8 GPUs, queue b"))
    racks = hive.engine.pool.topology().of("rack")
    assert len({racks[at(hive, number)[0]] for number in (1, 2)}) == 1
    hive.submit(job("2x8 GPUs, queue a"))
    assert len(at(hive, 3)) == 2
    hive.check()


def test_small_jobs_share_the_cells_of_their_tenant():
    hive = world(tenants(a={"node": 1}, b={"node": 3}))
    hive.submit(*[job("2 GPUs, queue a") for _ in range(4)])
    assert {at(hive, number)[0] for number in (1, 2, 3, 4)} == {0}
    hive.submit(job("1 GPU, queue a"))
    assert at(hive, 5) == [], "its one machine is full"
    assert hive.engine.queue.group_of(hive.jobs[5]).why.token is Token.RESERVED_FOR_OTHER
    hive.submit(*[job("8 GPUs, queue b") for _ in range(3)])
    assert sorted(at(hive, number)[0] for number in (6, 7, 8)) == [1, 2, 3]


def test_single_gpus_are_cells_too():
    hive = world(tenants(a={"gpu": 4}, b={"gpu": 2}, c={"node": 1}), "2x8")
    hive.submit(job("3 GPUs, queue a"), job("2 GPUs, queue b"), job("1 GPU, queue a"), job("1 GPU, queue a"))
    assert [at(hive, number) for number in (1, 2, 3, 4)] == [[0], [0], [0], []]
    hive.submit(job("8 GPUs, queue c"))
    assert at(hive, 5) == [1]


def test_who_cannot_leave_never_stays_in_the_way_of_a_tenant():
    hive = world(tenants(a={"rack": 1}))
    hive.submit(*[job("8 GPUs, queue guest") for _ in range(3)])
    held = [at(hive, number) for number in (1, 2, 3)]
    assert held[2] == [], "the third would take the last whole rack"
    assert hive.engine.queue.group_of(hive.jobs[3]).why.token is Token.RESERVED_FOR_OTHER
    hive.submit(job("2x8 GPUs, queue a"))
    assert len(at(hive, 4)) == 2


def test_opportunistic_jobs_have_their_minimum_run_time():
    hive = world(tenants(a={"node": 1}), "1x8")
    guests(hive, 1, "8 GPUs, stoppable, queue guest, at least 600 s")
    hive.submit(job("8 GPUs, queue a"))
    assert told(hive) == []
    assert hive.engine.next_time() == 660.0
    hive.tick(at=660.0)
    assert told(hive) == [1]


def test_without_tenants_it_is_first_come_first_served():
    hive = World(cluster("1x8"), "hived")
    hive.submit(job("8 GPUs, stoppable"), job("8 GPUs"))
    assert at(hive, 1) == [] or at(hive, 2) == []
    assert told(hive) == []


# As if each tenant had its cluster to itself ------------------------------------------------------------------------


class Later:
    """An inbox of jobs with their times."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = sorted(jobs, key=lambda one: (one.submitted, one.id))

    def poll(self, now: float) -> list[Event]:
        due = [one for one in self.jobs if one.submitted <= now]
        self.jobs = self.jobs[len(due) :]
        return [Event(one.submitted, Kind.SUBMITTED, one.id, 0, one) for one in due]

    def next_time(self) -> float | None:
        return self.jobs[0].submitted if self.jobs else None

    def settle(self, refused: dict[int, ConflictError]) -> None:
        assert not refused


def run(nodes: list[Node], policy: str, asked: list[tuple[int, str, Shape, float, float, bool]], tree: Tree | None):
    """First starts by job; after every tick the cells are looked at."""
    backend = SimulatedBackend(nodes)
    jobs = []
    for number, queue, shape, submitted, lasts, preemptible in asked:
        jobs.append(Job(number, shape, submitted, queue=queue, preemptible=preemptible))
        backend.expect(number, lasts)
    engine = Engine(store=MemoryStore(), backend=backend, policy=load(policy), inbox=Later(jobs))
    if tree is not None:
        engine.use_tree(tree)
    clock = VirtualClock(0.0)
    while True:
        engine.tick(clock.now())
        if tree is not None:
            judge_cells(engine, tree)
        due = engine.next_time()
        if due is None:
            break
        clock.wait(due)
    assert all(one.state is State.SUCCEEDED for one in jobs)
    return {one.id: one.first_start for one in jobs}


def judge_cells(engine: Engine, tree: Tree) -> None:
    """No machine is bound twice, nobody has more than it owns, and what is not bound could be cut out at once."""
    pool = engine.pool
    running = [one for one in engine.queue.running.jobs.values() if one.id not in engine.queue.running.vacating]
    cells = Cells(Tenants(pool, tree), pool, running)
    seen = 0
    for (tenant, level), bound in cells.bound.items():
        assert len(bound) <= tree[tenant].cells[level]
        for index in bound:
            part = pool.topology().parts(level)[index]
            assert not part & seen, "a machine is bound twice"
            seen |= part
    must_stay = [one for one in running if one.id in cells.inside or not one.preemptible]
    busy = {piece.node for one in must_stay for piece in one.placement}
    racks = pool.topology().domains("rack")
    wanted = {
        level: sum(node.cells.get(level, 0) - len(cells.bound.get((node.name, level), ())) for node in tree)
        for level in ("rack", "node")
    }
    bound_nodes = {number for number in range(len(pool.nodes)) if seen >> number & 1}
    free = set(range(len(pool.nodes))) - busy - bound_nodes
    whole = [
        rack for rack in racks if all(number in free for number in range(len(pool.nodes)) if rack.nodes >> number & 1)
    ]
    assert len(whole) >= wanted["rack"], "a rack that is owned could not be had"
    assert len(free) - wanted["rack"] * 2 >= wanted["node"], "nor a machine"


@pytest.mark.parametrize("seed", range(12))
def test_a_tenant_starts_its_jobs_when_it_would_on_a_cluster_of_its_own(seed):
    """Tenant a owns machines, b racks; guests flood what is free. Jobs of a and b cannot be preempted."""
    draw = Random(seed)  # noqa: S311 - a workload, no secret
    asked = []
    for number in range(1, 121):
        queue = draw.choice(["a", "a", "b", "guest", "guest", "guest"])
        shape = {
            "a": lambda: draw.choice([Shape(1, 1), Shape(1, 2), Shape(1, 4), Shape(1, 8), Shape(2, 8)]),
            "b": lambda: draw.choice([Shape(2, 8), Shape(1, 8), Shape(2, 4)]),
            "guest": lambda: draw.choice([Shape(1, 1), Shape(1, 4), Shape(1, 8), Shape(2, 8), Shape(3, 2)]),
        }[queue]()
        asked.append(
            (number, queue, shape, float(draw.randint(0, 4000)), float(draw.randint(5, 400)), queue == "guest")
        )
    tree = tenants(a={"node": 2}, b={"rack": 1})
    shared = run(cluster("2x8@rack=x 2x8@rack=y 2x8@rack=z"), "hived", asked, tree)
    for tenant in ("a", "b"):
        own = [one for one in asked if one[1] == tenant]
        alone = run(cluster("2x8@rack=x"), "arrival+best_fit+skip", own, None)
        assert {number: shared[number] for number in alone} == alone


def test_the_queue_files_of_the_documentation_are_right():
    words = (Path(__file__).parents[2] / "docs" / "topology.md").read_text()
    files = [block.split("```")[0] for block in words.split("```yaml\n")[1:]]
    trees = [parse_queues(text, file="docs") for text in files if "queues:" in text]
    assert [tree.topology for tree in trees] == [("hall", "row", "nvlink"), ()]
    assert dict(trees[1]["nlp"].cells) == {"node": 4, "gpu": 2}
    jobs = [read_jobs(text, file="docs") for text in files if "queues:" not in text]
    assert jobs[0][0].shape().topology == ("required", "rack")
