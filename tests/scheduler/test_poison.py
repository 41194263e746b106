"""When a node counts as poisoned: the evidence by itself, in the engine, and across a restart."""

from __future__ import annotations

from contextlib import closing

import pytest

from builders import World, cluster, job
from gpusched.cluster.backend import NodeChange
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, RetryRule, Shape
from gpusched.jobs.job import Rule as RetryFor
from gpusched.policies.catalog import load
from gpusched.scheduler.door import Door
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.poison import BY, Evidence, Poison, Rule
from gpusched.scheduler.store import MemoryStore
from gpusched.scheduler.store.ends import recent_ends
from gpusched.scheduler.store.sql import SqlStore

UP = [f"n{number}" for number in range(8)]
LOST = {
    "exit_code": 1,
    "cause": "pattern",
    "which": "gpu_lost",
    "patterns": ["gpu_lost"],
    "cause_detail": "GPU is lost",
}


def failed(poison: Poison, node: str, job_id: int, time: float, *, points: bool = True) -> None:
    poison.failed(Evidence(node, job_id, 1, time, "pattern:gpu_lost", "GPU is lost"), points=points)


def sentenced(poison: Poison, now: float = 100.0, up: list[str] = UP, cordoned: int = 0) -> list[str]:
    return [one.node for one in poison.sentences(now, up, len(UP), cordoned) if not one.spared]


def test_three_different_jobs_are_enough_and_two_are_not():
    poison = Poison()
    failed(poison, "n1", 1, 10)
    failed(poison, "n1", 2, 20)
    failed(poison, "n1", 2, 30)
    assert sentenced(poison) == []
    failed(poison, "n1", 3, 40)
    (found,) = poison.sentences(50, UP, 8, 0)
    assert (found.node, found.spared, [one.job for one in found.evidence]) == ("n1", "", [1, 2, 3])
    assert "3 different jobs failed here within 30s" in found.why
    assert "job 3 attempt 1 at 40 s (GPU is lost)" in found.why


def test_what_is_older_than_the_window_does_not_count():
    poison = Poison(Rule(window=100))
    for number, time in enumerate((10, 20, 130)):
        failed(poison, "n1", number, time)
    assert sentenced(poison, 130) == []


def test_a_job_that_fails_on_other_nodes_too_is_no_witness():
    poison = Poison()
    for number in (1, 2, 3):
        failed(poison, "n1", number, 10)
    failed(poison, "n2", 3, 20)
    assert sentenced(poison) == []
    failed(poison, "n1", 3, 30)
    assert sentenced(poison) == []
    failed(poison, "n1", 4, 40)
    assert sentenced(poison) == ["n1"]


def test_a_failure_of_unknown_cause_counts_once_the_job_did_its_work_elsewhere():
    poison = Poison()
    for number in (1, 2, 3, 4):
        failed(poison, "n1", number, 10, points=False)
    assert sentenced(poison) == []
    poison.succeeded(1, ["n2"])
    poison.succeeded(2, ["n2", "n3"])
    poison.succeeded(3, ["n1"])  # there it can be done
    assert sentenced(poison) == []
    poison.succeeded(4, ["n5"])
    assert sentenced(poison) == ["n1"]


def test_no_more_than_a_share_of_the_nodes_and_never_the_last_one_is_cordoned_and_that_is_said():
    poison = Poison()
    for number in range(12):
        failed(poison, f"n{number % 4}", number, 10)
    found = poison.sentences(20, UP, 8, 1)
    assert [bool(one.spared) for one in found] == [False, True, True, True]
    assert "2 of 8 nodes are cordoned for that already, and 25% may be" in found[1].spared
    assert [one.node for one in poison.sentences(21, UP, 8, 2)] == ["n0"], "what was spared is said once"
    alone = Poison()
    for number in range(3):
        failed(alone, "n0", number, 10)
    (spared,) = alone.sentences(20, ["n0"], 8, 0)
    assert spared.spared == "it is the last node that takes work"


def test_resumed_it_begins_with_a_clean_sheet():
    poison = Poison()
    for number in (1, 2, 3):
        failed(poison, "n1", number, 10)
    poison.forget("n1", 15)
    failed(poison, "n1", 4, 12)  # news from before
    assert sentenced(poison) == []
    for number in (5, 6, 7):
        failed(poison, "n1", number, 20)
    assert sentenced(poison) == ["n1"]


def test_zero_jobs_means_never():
    poison = Poison(Rule(jobs=0))
    for number in range(9):
        failed(poison, "n1", number, 10)
    assert sentenced(poison) == []


# In the engine -----------------------------------------------------------------------------------------------------


class Site(World):
    """A world with a door, as live."""

    def __init__(self, words: str, **more) -> None:
        super().__init__(cluster(words), "binpack", **more)
        self.hands = self.backend
        self.door = Door(self.backend)
        self.begin()

    def begin(self) -> None:
        """A control plane begins, by what the store says."""
        engine = Engine(store=self.store, backend=self.door, policy=self.policy, inbox=self.inbox)
        nodes = self.store.known_nodes()
        self.door.remember([change for _, change in nodes])
        engine.recover(self.store.unfinished(), nodes, self.now)
        engine.cordon = lambda name, why, now: self.door.cordon(name, why, now, by=BY)
        self.engine = engine
        self.hands.changes += [NodeChange(self.now, node) for node in self.nodes.values()]
        self.tick()

    def fails(self, job_id: int, data: dict) -> str:
        """The node on which it failed."""
        where = self.engine.pool.nodes[self.jobs[job_id].placement[0].node].name
        self.report(Kind.FINISHED, job_id, data=data)
        self.tick()
        return where

    def node(self, name: str):
        return self.engine.pool.nodes[self.engine.pool.number(name)]

    def told(self, what: str) -> list[dict]:
        events = (event for _, event in self.store.events(0) if event.kind is Kind.NODE)
        return [event.data for event in events if event.data["what"] == what]


def ruined() -> Site:
    site = Site("4x8")
    for number in (1, 2, 3):
        site.tick(at=site.now + 10)
        site.submit(job("1 GPU"))
        assert site.fails(number, LOST) == "n0"
    return site


def test_the_third_job_that_a_node_fails_has_it_cordoned_with_the_evidence_and_the_next_goes_elsewhere():
    site = ruined()
    assert not site.node("n0").schedulable
    assert "3 different jobs failed here within 20s" in site.node("n0").why
    (found,) = site.told("poisoned")
    assert [(one["job"], one["attempt"], one["cause"]) for one in found["evidence"]] == [
        (number, 1, "pattern:gpu_lost") for number in (1, 2, 3)
    ]
    site.submit(job("1 GPU"))
    assert site.engine.pool.nodes[site.jobs[4].placement[0].node].name == "n1"


def test_the_jobs_own_failures_poison_nothing():
    site = Site("4x8")
    for number in range(1, 7):
        site.submit(job("1 GPU"))
        site.fails(number, {"exit_code": 1, "cause": "exit"})
    assert site.node("n0").schedulable
    assert not site.told("poisoned")


@pytest.mark.parametrize(("which", "poisoned"), [("cuda", True), ("network", False)])
def test_a_cause_that_may_be_eithers_counts_once_the_jobs_did_their_work_elsewhere(which, poisoned):
    site = Site("4x8")
    rule = RetryRule(3, (), (RetryFor(("failure",), "retry_elsewhere"),))
    for number in (1, 2, 3):
        site.submit(job("1 GPU"))
        site.jobs[number].retry = rule
        site.fails(number, {"exit_code": 1, "cause": "pattern", "which": which, "patterns": [which]})
    assert site.node("n0").schedulable
    site.tick(at=site.now + 5)
    for number in (1, 2, 3):
        site.finished(number)
        site.tick()
    assert site.node("n0").schedulable is not poisoned


def test_resumed_by_an_administrator_it_takes_work_and_three_others_have_to_fail_there_again():
    site = ruined()
    site.tick(at=site.now + 10)
    site.door.resume("n0", site.now, by="ann")
    site.tick()
    assert site.node("n0").schedulable
    for number in (4, 5):
        site.submit(job("1 GPU"))
        assert site.fails(number, LOST) == "n0"
    assert site.node("n0").schedulable


def test_a_spared_node_is_said_to_be_suspected_and_goes_on():
    site = Site("1x8")
    for number in (1, 2, 3):
        site.submit(job("1 GPU"))
        site.fails(number, LOST)
    assert site.node("n0").schedulable
    (found,) = site.told("suspected")
    assert found["spared"] == "it is the last node that takes work"


def test_a_restart_forgets_neither_the_cordon_nor_the_evidence(tmp_path):
    with closing(SqlStore(f"sqlite:///{tmp_path}/gpusched.db")) as store:
        site = Site("4x8", store=store)
        for number in (1, 2):
            site.submit(job("1 GPU"))
            site.fails(number, LOST)
        site.begin()
        with store.reader() as connection:
            site.engine.endings.recall(Rule(), recent_ends(connection, -1.0))
        site.submit(job("1 GPU"))
        site.fails(3, LOST)
        assert not site.node("n0").schedulable
        site.begin()
        assert not site.node("n0").schedulable
        assert "3 different jobs failed here" in site.node("n0").why


def test_a_simulated_cluster_is_watched_in_the_same_way():
    """No test double: the backend of every simulation behind the door, and reports put into its news."""
    nodes = cluster("4x8")
    backend = SimulatedBackend(nodes)
    door = Door(backend)
    world = World(nodes)
    engine = Engine(store=MemoryStore(), backend=door, policy=load("binpack"), inbox=world.inbox)
    engine.cordon = lambda name, why, now: door.cordon(name, why, now, by=BY)
    engine.tick(0.0)
    for number in (1, 2, 3):
        backend.expect(number, 1000.0)
        world.inbox.asked.append(Event(0.0, Kind.SUBMITTED, number, 0, Job(number, Shape(1, 1), 0.0)))
        engine.tick(float(number))
        backend._reports.append(Event(float(number), Kind.FINISHED, number, 1, LOST))
        engine.tick(float(number))
    engine.tick(4.0)
    assert not engine.pool.nodes[0].schedulable


@pytest.mark.parametrize("cause", ["node_lost", "lost"])
def test_a_node_that_goes_is_not_poisoned_by_that(cause):
    site = Site("4x8")
    for number in (1, 2, 3, 4):
        site.submit(job("1 GPU"))
        site.report(Kind.VANISHED, number, data={"message": "gone", "cause": cause, "node": "n0"})
        site.tick()
    assert site.node("n0").schedulable
