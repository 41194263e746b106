"""Nodes that close: who is told to go when, who may still start there, and what the journal says of it."""

from __future__ import annotations

import pytest

from builders import World, after, cluster, job, made, trace
from gpusched.cluster.backend import NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import GRACE, State
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.plan import Token
from gpusched.scheduler.door import Door
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.explain import explain
from gpusched.scheduler.node_orders import Window
from gpusched.scheduler.simulate import trial

HOUR = 3600.0


class Site(World):
    """A world whose nodes administrators have a word on."""

    def __init__(self, words: str, policy: str = "fifo", windows: tuple[Window, ...] = ()) -> None:
        nodes = cluster(words)
        super().__init__([], policy)
        self.nodes = {node.name: node for node in nodes}
        self.door = Door(self.backend, windows=windows)
        self.engine.backend = self.door
        self.backend.changes = [NodeChange(0.0, node) for node in nodes]
        self.tick()

    def drain(self, name, reason="", *, within=None, by="ann"):
        changed = self.door.drain(name, reason, self.now, by=by, deadline=None if within is None else self.now + within)
        self.tick()
        return changed

    def resume(self, name):
        changed = self.door.resume(name, self.now, by="ann")
        self.tick()
        return changed

    def plan(self, *windows):
        self.door.use_windows(windows, self.now)
        self.tick()

    def restart(self):
        """Kill -9: a new door and a new engine, from what is stored."""
        stored = self.store.known_nodes()
        there = list(self.backend_nodes())
        windows = self.door.orders.windows
        self.door = Door(self.backend, [change for _, change in stored], windows)
        self.engine = Engine(store=self.store, backend=self.door, policy=load(self.policy.name), inbox=self.inbox)
        self.engine.recover(self.store.unfinished(), stored, self.now)
        self.backend.changes = there
        self.tick()

    def backend_nodes(self):
        return [NodeChange(self.now, node) for node in self.nodes.values()]

    def stopped(self):
        return [job for job, _, _ in self.backend.stopped]

    def lines(self, name=None):
        """What the journal says of nodes."""
        told = [event.data for _, event in self.store.events() if event.kind is Kind.NODE]
        return [data["what"] for data in told if name is None or data["node"] == name]

    def enter(self, one):
        self.jobs[one.id], self.born[one.id] = one, one.state
        next(self._ids)
        self.inbox.asked.append(Event(self.now, Kind.SUBMITTED, one.id, 0, one))
        self.tick()

    def run_on(self, *jobs):
        for one in jobs:
            self.started(one.id)

    def where(self, one):
        return {self.engine.pool.nodes[piece.node].name for piece in one.placement}


def test_a_draining_node_takes_no_work_and_its_jobs_go_their_grace_before_the_deadline():
    site = Site("1x2 1x2")
    first, second = site.submit(job("2 GPUs"), job("2 GPUs"))
    site.run_on(first, second)
    assert site.drain("n0", "fan is loud", within=600)
    assert site.engine.next_time() == 600 - GRACE
    site.tick(at=600 - GRACE - 1)
    assert site.stopped() == []
    site.tick(at=600 - GRACE)
    assert site.stopped() == [first.id], "not preemptible, and it goes all the same"
    assert first.state is State.PREEMPTING
    assert first.reason == "node n0 is drained by ann until 600 s: fan is loud"
    told = site.store.events(first.id)[-1][1]
    assert (told.kind, told.data["cause"], told.data["node"], told.data["deadline"]) == (
        Kind.PREEMPTED, "drain", "n0", 600,
    )  # fmt: skip
    site.finished(first.id, 143)
    assert (first.state, first.failures) == (State.QUEUED, 0)
    assert site.lines("n0") == ["joined", "draining", "drained"]
    site.finished(second.id)
    assert site.where(first) == {"n1"}, "elsewhere, and not back"
    site.check()


def test_what_ends_by_itself_before_the_deadline_is_left_alone_and_without_one_everything_is():
    site = Site("1x2 1x2")
    first, second = site.submit(job("2 GPUs"), job("2 GPUs"))
    site.run_on(first, second)
    site.drain("n0", within=600)
    site.drain("n1")
    site.finished(first.id)
    site.tick(at=100_000)
    assert site.stopped() == []
    assert second.state is State.RUNNING
    assert site.lines("n1") == ["joined", "draining"]
    site.finished(second.id)
    assert site.lines("n1") == ["joined", "draining", "drained"]


def test_at_once_means_now_also_for_a_job_that_is_starting_and_for_the_whole_of_a_gang():
    site = Site("4x2")
    (gang,) = site.submit(job("2x2 GPUs, apart"))
    (alone,) = site.submit(job("1 GPU"))
    assert site.where(gang) == {"n0", "n1"}
    site.started(alone.id)
    site.drain("n1", within=0)
    assert site.stopped() == [gang.id]
    site.finished(gang.id, 143)
    assert site.where(gang) == {"n0", "n3"}
    assert (gang.attempt, gang.failures) == (2, 0)
    site.check()


def test_a_later_deadline_holds_and_resume_calls_the_drain_off():
    site = Site("1x2 1x2")
    first, second = site.submit(job("2 GPUs"), job("2 GPUs"))
    site.run_on(first, second)
    site.drain("n0", within=600)
    assert not site.drain("n0", within=1200), "it drains already"
    site.tick(at=1000)
    assert site.stopped() == []
    assert site.resume("n0")
    assert not site.resume("n0")
    site.tick(at=5000)
    assert site.stopped() == []
    assert site.lines("n0") == ["joined", "draining", "draining", "resumed"]
    (third,) = site.submit(job("2 GPUs"))
    site.finished(first.id)
    assert site.where(third) == {"n0"}


def test_a_drain_outlives_the_control_plane_with_its_deadline_and_who_asked_and_is_done_twice_without_harm():
    site = Site("1x2 1x2")
    first, second = site.submit(job("2 GPUs"), job("1 GPU"))
    site.run_on(first, second)
    site.drain("n0", "fan", within=600)
    site.tick(at=300)
    site.restart()
    assert site.door.orders.drains["n0"].by == "ann"
    assert site.engine.next_time() == 600 - GRACE
    assert site.lines("n0") == ["joined", "draining"], "a restart is no news of the node"
    site.tick(at=600 - GRACE)
    assert site.stopped() == [first.id]
    site.restart()
    assert site.stopped() == [first.id, first.id], "told again, as it may not have been done"
    site.finished(first.id, 143)
    assert first.failures == 0
    assert site.events(first.id).count("preempted") == 1


def test_a_deadline_that_passed_while_nothing_ran_is_acted_on_at_once():
    site = Site("1x2")
    (first,) = site.submit(job("2 GPUs"))
    site.started(first.id)
    site.drain("n0", within=600)
    site.clock.wait(5000)
    site.restart()
    assert site.stopped() == [first.id]


def test_a_node_that_comes_back_keeps_its_orders():
    site = Site("1x2 1x2")
    site.drain("n0", "fan")
    site.change("n0", gone=True)
    site.change("n0", address="10.0.0.7")
    (one,) = site.submit(job("2 GPUs"))
    assert site.where(one) == {"n1"}
    assert site.lines("n0") == ["joined", "draining", "drained", "left", "returned"]
    site.resume("n0")
    (two,) = site.submit(job("2 GPUs"))
    assert site.where(two) == {"n0"}


def test_a_cordon_of_an_earlier_release_still_holds():
    site = Site("1x2")
    stored = NodeChange(5.0, cluster("1x2")[0].__class__("n0", 2, schedulable=False, why="cordoned: loud | no disk"))
    door = Door(site.backend, [stored])
    assert door.orders.cordons["n0"].reason == "loud"
    site.backend.changes = [NodeChange(6.0, site.nodes["n0"])]
    (change,) = door.poll(6.0).nodes
    assert (change.node.schedulable, change.node.why) == (False, "cordoned: loud")


# Maintenance windows ------------------------------------------------------------------------------------------------


def window(start, end, *nodes, lead=0.0, number=1):
    return Window(number, start, end, nodes=nodes, everywhere=not nodes, reason="firmware", by="ann", lead=lead)


@pytest.mark.parametrize("policy", sorted(CATALOG))
def test_only_who_is_gone_before_a_window_starts_before_it_under_every_policy(policy):
    site = Site("1x2", policy)
    site.plan(window(HOUR, 2 * HOUR, lead=HOUR))
    (long,) = site.submit(job("2 GPUs, limit 7200 s, estimate 7200 s"))
    (short,) = site.submit(job("2 GPUs, limit 1800 s, estimate 1800 s"))
    assert long.state is State.QUEUED
    assert short.state is State.STARTING, "though it came later"
    site.started(short.id)
    site.tick(at=1799)
    site.finished(short.id)
    site.tick(at=HOUR - 1)
    assert long.state is State.QUEUED
    site.tick(at=HOUR)
    assert "maintenance began" in site.lines("n0")
    site.tick(at=2 * HOUR)
    assert long.state is State.STARTING, "the window is over"
    assert site.lines("n0") == ["joined", "maintenance began", "maintenance ended"]
    assert site.stopped() == []
    site.check()


def test_who_still_runs_when_a_window_begins_is_moved_in_time():
    site = Site("1x2 1x2")
    first, second = site.submit(job("2 GPUs, estimate 100 s"), job("1 GPU"))
    site.run_on(first, second)
    site.plan(window(HOUR, 2 * HOUR, "n0"))
    site.tick(at=HOUR - GRACE)
    assert site.stopped() == [first.id]
    assert "maintenance" in first.reason
    site.finished(first.id, 143)
    assert first.state is State.QUEUED
    site.tick(at=2 * HOUR)
    assert site.where(first) == {"n0"}


def test_a_job_of_unknown_length_starts_until_the_lead_and_one_that_keeps_its_word_is_never_moved():
    site = Site("3x1")
    site.plan(window(HOUR, 2 * HOUR, lead=600))
    unknown, late = made(1, job("1 GPU")), made(2, job("1 GPU"))
    unknown.estimate = late.estimate = None
    site.enter(unknown)
    assert unknown.state is State.STARTING
    site.tick(at=HOUR - 599)
    site.enter(late)
    assert late.state is State.QUEUED
    site.cancel(late.id)
    left = 599 - int(GRACE)
    exact, beyond = site.submit(job(f"1 GPU, estimate {left} s"), job(f"1 GPU, estimate {left + 1} s"))
    assert (exact.state, beyond.state) == (State.STARTING, State.QUEUED)
    site.run_on(unknown, exact)
    site.tick(at=HOUR - GRACE - 1)
    assert site.stopped() == []
    site.finished(exact.id)
    site.tick(at=HOUR - GRACE)
    assert site.stopped() == [unknown.id]


def test_nobody_comes_and_goes_while_a_window_is_near():
    """Who says nothing of its length, or ran longer than it said, is not started to be told to go at once."""
    site = Site("1x2")
    site.plan(window(HOUR, 2 * HOUR))
    (one,) = site.submit(job("2 GPUs, estimate 60 s"))
    one.executed = 100.0
    site.started(one.id)
    site.tick(at=HOUR - GRACE)
    site.finished(one.id, 75)
    assert (one.state, one.attempt) == (State.QUEUED, 1)
    site.tick(at=2 * HOUR)
    assert one.attempt == 2


def test_a_window_that_is_called_off_lets_who_waited_start_and_a_cordon_outlasts_a_window():
    site = Site("1x2")
    site.plan(window(HOUR, 2 * HOUR))
    (long,) = site.submit(job("2 GPUs, estimate 9000 s"))
    assert long.state is State.QUEUED
    site.plan()
    assert long.state is State.STARTING
    site.started(long.id)
    site.plan(window(HOUR, 2 * HOUR))
    site.door.cordon("n0", "also this", site.now, by="bob")
    site.tick(at=HOUR - GRACE)
    site.finished(long.id, 75)
    site.tick(at=2 * HOUR + 1)
    assert long.state is State.QUEUED, "the cordon holds on"
    site.resume("n0")
    assert long.state is State.STARTING


def test_windows_hold_for_nodes_that_join_later_and_survive_a_restart():
    site = Site("1x2@rack=a")
    soon = Window(3, HOUR, 2 * HOUR, labels=(("rack", "a"),))
    site.plan(soon)
    (late,) = cluster("1x2@rack=a")
    late = type(late)("n9", 2, labels={"rack": "a"})
    site.nodes["n9"] = late
    site.change("n9")
    site.submit(job("4x1 GPU, estimate 9000 s"))
    assert site.states() == {1: "QUEUED"}
    site.restart()
    assert site.states() == {1: "QUEUED"}
    site.tick(at=2 * HOUR)
    assert site.states() == {1: "STARTING"}


def test_why_it_waits_names_the_nodes_and_until_when():
    site = Site("1x2 1x1")
    site.plan(window(HOUR, 2 * HOUR, "n0"))
    (long,) = site.submit(job("2 GPUs, estimate 9000 s"))
    why = site.engine.queue.group_of(long).why
    assert why.token is Token.NODES_DRAINING
    (reason, *_) = explain(site.engine, long, site.now).reasons
    assert reason.token is Token.NODES_DRAINING
    assert "n0" in reason.message
    assert "7200 s" in reason.message
    assert reason.numbers["nodes"] == ["n0"]
    assert reason.numbers["until"] == 2 * HOUR


def test_a_replay_with_a_window_keeps_it_free_and_loses_no_work():
    """By hand: n0 is closed from 1000 to 2000. Job 1 says 2000 s and stays off it, job 3 fits before, job 4 waits."""
    story = trace(
        job("4 GPUs for 2000 s"),
        job("4 GPUs for 3000 s"),
        job("2 GPUs for 900 s"),
        *after(500, job("8 GPUs for 100 s")),
    )
    found = trial(story, cluster("1x4 1x4 1x8"), load("binpack"), windows=[window(1000, 2000, "n0")])
    starts = {one.name: one.first_start for one in found.run.jobs}
    ends = {one.name: one.ended for one in found.run.jobs}
    assert starts == {"job-1": 0, "job-2": 0, "job-3": 0, "job-4": ends["job-2"]}
    assert ends["job-1"] == 2000
    assert all(one.state is State.SUCCEEDED and not one.failures for one in found.run.jobs)
    for event in found.run.journal:
        if event.kind is Kind.PLACED and any(piece.node == 0 for piece in event.data):
            ended = ends[f"job-{event.job}"]
            assert ended <= 1000 - GRACE or event.time >= 2000
    told = [
        event.data["what"]
        for _, event in found.store.events()
        if event.kind is Kind.NODE and event.data["node"] == "n0"
    ]
    assert told == ["joined", "maintenance began", "maintenance ended"]
