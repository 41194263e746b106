"""Whatever runs and whatever orders nodes are given: who has to be gone is gone in time, and nothing is lost."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders import cluster, job, trace
from gpusched.cluster.clock import VirtualClock
from gpusched.cluster.profile import Profile
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, State
from gpusched.policies.catalog import load
from gpusched.scheduler.door import Door
from gpusched.scheduler.engine import GRACE, Engine
from gpusched.scheduler.node_orders import Window
from gpusched.scheduler.simulate import Arrivals
from gpusched.scheduler.store import MemoryStore

POLICIES = ["fifo", "binpack", "easy", "conservative", "urgent", "srtf", "gang", "topology", "consolidating"]
ASKS = ["1 GPU", "2 GPUs", "4 GPUs", "2x2 GPUs, apart", "3x1 GPU", "5 GPUs in total", "0.5 GPU"]
NAMES = ["n0", "n1", "n2"]

asks = st.lists(
    st.tuples(
        st.sampled_from(ASKS),
        st.integers(1, 2000),  # how long it runs
        st.integers(0, 1500),  # when it comes
        st.sampled_from(["exact", "short", "none", "limit"]),  # what it says of that
    ),
    min_size=1,
    max_size=12,
)
orders = st.lists(
    st.tuples(st.integers(1, 2000), st.sampled_from(NAMES), st.sampled_from(["drain", "now", "later", "resume"])),
    max_size=6,
)
windows = st.lists(
    st.tuples(st.integers(0, 2500), st.integers(1, 800), st.sets(st.sampled_from(NAMES), min_size=1)), max_size=3
)


class Ordered(Door):
    """Administrators who give their orders at their times."""

    def __init__(self, backend, windows, asked):
        super().__init__(backend, windows=windows)
        self.asked = sorted(asked)
        self.closed = []  # (node, from, until): nothing may run there then

    def poll(self, now):
        while self.asked and self.asked[0][0] <= now:
            _, name, what = self.asked.pop(0)
            # Whatever held for this node until now does so no longer.
            self.closed = [(one, since, min(until, now) if one == name else until) for one, since, until in self.closed]
            if what == "resume":
                self.resume(name, now)
            else:
                deadline = {"drain": None, "now": now, "later": now + 300.0}[what]
                self.drain(name, "", now, deadline=deadline)
                holds = self.orders.drains[name].deadline
                if holds is not None:
                    # What was told to go at once has its grace.
                    self.closed.append((name, max(holds, now + GRACE), float("inf")))
        return super().poll(now)

    def next_time(self):
        due = super().next_time()
        if not self.asked:
            return due
        return self.asked[0][0] if due is None else min(due, self.asked[0][0])


class Asked(Arrivals):
    """Jobs that say of their length what the test wants them to."""

    said: dict[int, str]

    def poll(self, now):
        arrived = super().poll(now)
        for event in arrived:
            one: Job = event.data
            said = self.said[one.id]
            if said == "none":
                one.estimate = None
            elif said == "short":
                one.estimate = one.estimate / 2
            elif said == "limit":
                one.limit = float(one.estimate)
            one.preemptible = False
        return arrived


# A job that outlasted its estimate is said to need no time any more: it holds its GPUs all the same.
SPENT = [("1 GPU", 2, 1, "exact"), ("2x2 GPUs, apart", 1, 1, "exact"), ("2x2 GPUs, apart", 3, 0, "short")]


@settings(max_examples=80, deadline=None)
@example(jobs=SPENT, asked=[(1, "n0", "drain")], planned=[(62, 1, {"n0"})], policy="easy", grace=0.0)
@given(
    jobs=asks,
    asked=orders,
    planned=windows,
    policy=st.sampled_from(POLICIES),
    grace=st.sampled_from([0.0, 7.0, 60.0]),
)
def test_after_its_deadline_nothing_runs_on_a_node_and_nothing_is_lost(jobs, asked, planned, policy, grace):
    nodes = cluster("3x4")
    profile = Profile(grace=grace)
    story = trace(*[job(f"{words} for {lasts} s", at=at) for words, lasts, at, _ in jobs])
    backend = SimulatedBackend(nodes, profile=profile)
    held = tuple(
        Window(number, float(start), float(start + length), tuple(sorted(names)), lead=0.0)
        for number, (start, length, names) in enumerate(planned, 1)
    )
    door = Ordered(backend, held, [*asked, *[(3000, name, "resume") for name in NAMES]])
    store = MemoryStore()
    inbox = Asked(story, story.jobs, backend, estimates="exact", progress=None, profile=profile)
    inbox.said = {number + 1: said for number, (*_, said) in enumerate(sorted(jobs, key=lambda one: one[2]))}
    engine = Engine(store=store, backend=door, policy=load(policy), inbox=inbox)
    engine.run(VirtualClock(0.0))

    states = {one.id: one.state for one in store.jobs.values()}
    assert set(states.values()) <= {State.SUCCEEDED, State.TIMEOUT}, states
    assert all(one.failures == 0 for one in store.jobs.values())
    kinds = [event.kind for event in store.journal]
    assert kinds.count(Kind.PLACED) == kinds.count(Kind.REQUEUED) + len(jobs), "each start ends once"
    for name, since, until in [*door.closed, *closed_by(held)]:
        for start, end, number in stays(store, nodes, name):
            assert max(start, since) >= min(end, until), (name, since, until, start, end, number)


def closed_by(windows):
    """Nothing runs in a window; what ran when it was planned too late has its grace. These are planned at time 0."""
    return [(name, max(one.start, GRACE), one.end) for one in windows for name in one.nodes if one.end > GRACE]


def stays(store, nodes, name):
    """(from, until, job) of each attempt on a node."""
    there = {}
    for event in store.journal:
        if event.kind is Kind.PLACED and any(nodes[piece.node].name == name for piece in event.data):
            there[event.job] = event.time
        elif event.job in there and event.kind in {Kind.SUCCEEDED, Kind.REQUEUED, Kind.TIMED_OUT, Kind.RETRIED}:
            yield there.pop(event.job), event.time, event.job
    assert not there
