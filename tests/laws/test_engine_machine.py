"""The engine under anything that users and a cluster may do, in any order: what must hold between any two ticks."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from builders import World, cluster, job
from gpusched.cluster.backend import NodeChange
from gpusched.jobs.events import Kind
from gpusched.jobs.job import FINAL, State
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.plan import Token
from gpusched.scheduler.engine import Engine, grace_of

CLUSTERS = [
    "2x4",
    "3x8:H100 2x4:A100",
    "2x8@rack=a+8cpu+64gb 1x4:A100@rack=b+64cpu+64gb 1x0+16cpu+16gb",
]
ASKS = [
    "1 GPU",
    "2 GPUs, limit 20 s",
    "4 GPUs",
    "8 GPUs",
    "2x4 GPUs, apart",
    "3x2 GPUs",
    "12 GPUs in total",
    "6 GPUs in total, held",
    "0.5 GPU",
    "2x0.3 GPU",
    "4 H100|A100 GPUs",
    "1 A100 GPU, 4 CPUs, 16 GB",
    "2 GPUs, rack=a",
    "no GPU, 4 CPUs",
    "2x1 GPU, 2 CPUs, limit 50 s, priority 90",
]
POLICIES = [*CATALOG, "priority+spread+skip", "shortest+best_fit+strict"]
CAUSES: list[dict[str, Any]] = [
    {},
    {"cause": "oom", "cause_detail": "out of memory"},
    {"cause": "gpu_oom"},
    {"cause": "pattern", "which": "xid", "patterns": ["xid"]},
    {"cause": "start", "which": "node"},
]
RETRIES = [((), 0), (("lost",), 2), (("failure", "lost"), 1), (("exit:3",), 2), (("oom", "pattern:xid"), 2)]

picks = st.integers(0, 30)


class Anything(RuleBasedStateMachine):
    """Every rule is one thing that may happen; the invariants are checked after each."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World([])
        self.shrunk = False

    @initialize(words=st.sampled_from(CLUSTERS), policy=st.sampled_from(POLICIES))
    def begin(self, words: str, policy: str) -> None:
        self.born = {node.name: node for node in cluster(words)}
        self.world = World(list(self.born.values()), policy)

    def pick(self, at: int, *states: State) -> int | None:
        found = [number for number, one in self.world.jobs.items() if not states or one.state in states]
        return found[at % len(found)] if found else None

    @rule(words=st.sampled_from(ASKS), count=st.integers(1, 4), retry=st.sampled_from(RETRIES))
    def submit(self, words: str, count: int, retry: tuple[tuple[str, ...], int]) -> None:
        self.world.submit(*[job(words, retry=retry[0], retries=retry[1])] * count)

    @rule(at=picks)
    def starts(self, at: int) -> None:
        if number := self.pick(at, State.STARTING):
            self.world.started(number)

    @rule(at=picks)
    def is_refused(self, at: int) -> None:
        if number := self.pick(at, State.STARTING):
            self.world.refused(number)

    @rule(at=picks, code=st.sampled_from([0, 0, 0, 1, 3, 75, 143]), why=st.sampled_from(CAUSES))
    def ends(self, at: int, code: int, why: dict[str, Any]) -> None:
        if number := self.pick(at, State.STARTING, State.RUNNING, State.STOPPING, State.PREEMPTING):
            self.world.report(Kind.FINISHED, number, data={"exit_code": code, **(why if code in {1, 3} else {})})

    @rule(at=picks)
    def vanishes(self, at: int) -> None:
        if number := self.pick(at, State.STARTING, State.RUNNING, State.STOPPING, State.PREEMPTING):
            self.world.vanished(number)

    @rule(at=picks, kind=st.sampled_from([Kind.CANCELLED, Kind.HELD, Kind.RELEASED]))
    def user_asks(self, at: int, kind: Kind) -> None:
        if number := self.pick(at):
            self.world.ask(kind, number)

    @rule(at=picks, kind=st.sampled_from([Kind.STARTED, Kind.REFUSED, Kind.FINISHED, Kind.VANISHED]))
    def old_news_changes_nothing(self, at: int, kind: Kind) -> None:
        number = self.pick(at)
        if number and (attempt := self.world.jobs[number].attempt):
            before = self.world.states()
            self.world.report(kind, number, attempt=attempt - 1, data={"exit_code": 1})
            assert self.world.states() == before

    @rule(at=picks)
    def final_stays_final(self, at: int) -> None:
        if number := self.pick(at, *FINAL):
            before = (self.world.states(), self.world.events(number))
            for kind in (Kind.STARTED, Kind.FINISHED, Kind.VANISHED):
                self.world.report(kind, number)
            assert (self.world.states(), self.world.events(number)) == before

    @rule(at=picks, how=st.sampled_from(["cordon", "uncordon", "goes", "returns", "shrinks", "is whole"]))
    def node(self, at: int, how: str) -> None:
        name = list(self.world.nodes)[at % len(self.world.nodes)]
        if how in {"cordon", "uncordon"}:
            self.world.change(name, schedulable=how == "uncordon", why="cordoned")
        elif how == "shrinks":
            self.shrunk = True
            self.world.change(name, gpus=self.born[name].gpus // 2)
        elif how == "goes":
            self.world.change(name, gone=True)
        else:
            self.world.change(name, gpus=self.born[name].gpus, fenced=())

    @rule(at=picks, within=st.sampled_from([None, 0, 5, 100, 1000]), window=st.booleans())
    def node_closes(self, at: int, within: int | None, window: bool) -> None:  # noqa: FBT001 - drawn
        """A drain, by a deadline or none; or a maintenance window to come, before which the node takes short jobs."""
        world = self.world
        name = list(world.nodes)[at % len(world.nodes)]
        by = {"by": "ann", "reason": "new disks"}
        closes = None if within is None else world.now + within
        if window and within:
            order = {**by, "id": 1, "start": closes, "end": closes + 100, "on": False}
            world.change(name, closes=closes, lead=20.0, orders={"maintenance": order})
        else:
            order = {**by, "since": world.now, "deadline": closes}
            drain = {"schedulable": False, "why": "draining", "closes": closes, "orders": {"drain": order}}
            world.change(name, **drain)

    @rule(at=picks)
    def node_is_resumed(self, at: int) -> None:
        name = list(self.world.nodes)[at % len(self.world.nodes)]
        self.world.change(name, schedulable=True, why="", closes=None, lead=0.0, orders={})

    @rule(at=picks, gpu=st.integers(0, 1))
    def gpu_is_fenced(self, at: int, gpu: int) -> None:
        name = list(self.world.nodes)[at % len(self.world.nodes)]
        if gpus := self.born[name].gpus:
            self.shrunk = True
            self.world.change(name, gpus=gpus - 1, fenced=((gpu, "memory in use by nobody"),))

    @rule(seconds=st.sampled_from([1, 5, 10, 60, 300, 100_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.tick(at=self.world.now + seconds)

    @rule(policy=st.sampled_from(POLICIES))
    def another_policy(self, policy: str) -> None:
        self.world.policy = load(policy)
        self.world.engine.use(self.world.policy)
        self.world.tick()

    @precondition(lambda self: self.world.jobs)
    @rule()
    def restart(self) -> None:
        """Kill -9 between two ticks: a new engine goes on from the store."""
        world, old = self.world, self.world.engine
        present = [node for number, node in enumerate(old.pool.nodes) if old.pool.present >> number & 1]
        world.engine = Engine(store=world.store, backend=world.backend, policy=load(old.policy.name), inbox=world.inbox)
        world.policy = world.engine.policy
        holding = world.engine.recover(world.store.unfinished(), world.store.known_nodes(), world.now)
        assert holding == world.running()
        world.engine.finished = old.finished
        world.backend.changes += [NodeChange(world.now, node) for node in present]
        world.tick()

    @invariant()
    def the_books_agree(self) -> None:
        self.world.check()

    @invariant()
    def no_node_holds_more_than_it_has(self) -> None:
        if not self.shrunk:
            pool = self.world.engine.pool
            assert min(pool.free, default=0) >= 0
            assert min(pool.cpu, default=0) >= 0
            assert min(pool.memory, default=0) >= 0

    @invariant()
    def nobody_stays_on_a_node_that_closes(self) -> None:
        """Who could not be gone any more was told to go, whatever the policy wants."""
        world = self.world
        for one in world.jobs.values():
            if one.state in {State.STARTING, State.RUNNING}:
                closes = [world.engine.pool.nodes[piece.node].closes for piece in one.placement]
                assert all(when is None or when - grace_of(one) > world.now for when in closes), one

    @invariant()
    def nobody_is_tried_again_more_often_than_its_rule_says(self) -> None:
        for one in self.world.jobs.values():
            assert one.failures <= (one.spec.retry.limit if one.spec else 0), one

    @invariant()
    def every_start_was_written_and_told_once(self) -> None:
        placed = [(event.job, event.attempt) for event in self.world.store.journal if event.kind is Kind.PLACED]
        assert placed == [start[:2] for start in self.world.backend.started]
        assert len(set(placed)) == len(placed)

    def teardown(self) -> None:
        """Everything comes back and everybody leaves in the end: what is left could never run here, and is told so."""
        world = self.world
        for name, node in getattr(self, "born", {}).items():
            world.change(name, gpus=node.gpus, schedulable=True, why="", fenced=(), closes=None, lead=0.0, orders={})
        for number in world.jobs:
            world.release(number)
        for _ in range(20 * len(world.jobs) + 1):
            world.tick(at=world.now + 1000)
            holding = world.running()
            if not holding:
                break
            world.finished(holding[0].id)
        world.check()
        for waits in world.jobs.values():
            if waits.state not in FINAL:
                why = world.engine.queue.group_of(waits).why
                assert why is not None, waits
                assert why.token is Token.INFEASIBLE, (waits, why)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=300, stateful_step_count=40)
