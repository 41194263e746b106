"""One storm: the real engine between a store and a cluster while everything goes wrong, then calm, in which all ends.

The same seed is the same storm, to the last report. storm_replay.py repeats one and makes it short.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from storm_checks import Ledger, check_engine, check_truth, demand
from storm_cluster import Cluster, Roughness
from storm_machines import BrokenError
from storm_plan import LENT, LIMIT, NEAR, QUEUES, RETRIES, Action, Forecast, forecast
from storm_planes import CrashError, Disk, File, Gate, MemoryPlane, Plane, SqlPlane, StormClock, new_file

from builders import Ask, made
from builders import cluster as nodes_of
from builders import job as ask_of
from gpusched.cluster.chance import uniform
from gpusched.jobs.errors import ConflictError, GpuschedError, StoreError
from gpusched.jobs.events import Kind
from gpusched.jobs.job import FINAL, WAITING, State, TopologyWish

STEPS = {"memory": 110, "sqlite": 60}
BEGINS = 1_700_000_000.0
MOST_TURNS = 4000
"""Turns of calm in which everything must have ended."""


class Storm:
    """One run. Raises BrokenError, or whatever the product raised and should not have."""

    def __init__(self, seed: int, store: str, folder: Path, say: Callable[[str], None] = lambda _line: None) -> None:
        self.seed = seed
        self.plan: Forecast = forecast(seed, STEPS[store])
        self.say = say
        self.gate = Gate()
        self.cluster = Cluster(nodes_of(self.plan.cluster), seed, BEGINS)
        self.clock = StormClock(self.cluster)
        self.ledger = Ledger()
        self.cluster.work_of = lambda job: self.ledger.of(job)[2]
        self.kind = store
        self.folder = folder
        self.disk: Disk | File
        self.url = ""
        if store == "memory":
            self.disk = Disk(self.gate)
            self.disk.policy, self.disk.queues = self.plan.policy, self.plan.queues
        else:
            self.disk, self.url = new_file(folder, self.gate)
        self.waits: list[tuple[Future[Any], Callable[[], None]]] = []
        self.crashes = 0
        self.plane = self._open()
        if store == "sqlite" and self.plan.queues:
            self._at_risk(lambda: self.plane.use_queues(self.plan.queues))

    # Running ------------------------------------------------------------------------------------------------------

    def run(self, keep: Collection[int] | None = None) -> None:
        """The storm, or some of its actions, and the calm after it."""
        try:
            for number, action in enumerate(self.plan.actions):
                if keep is not None and number not in keep:
                    continue
                self.say(f"{number:4} {action}")
                self._step(action)
            self.say("     calm")
            self._calm()
        finally:
            if isinstance(self.disk, File):
                self.disk.close()

    def _step(self, action: Action) -> None:
        self.cluster.run(self.cluster.time + action.wait)
        self._at_risk(lambda: self._do(action))
        for _ in range(action.turns):
            self._turn()
        self._check()

    def _turn(self) -> None:
        self.cluster.run(self.cluster.time + 0.01)
        self._at_risk(self.plane.turn)

    def _at_risk(self, act: Callable[[], None]) -> None:
        """Do something in the control plane's process, which may not survive it."""
        try:
            act()
        except CrashError as crash:
            self._restart(str(crash))
        self._hear()

    def _restart(self, where: str) -> None:
        """Kill -9: all that was in memory is gone, and the next process begins with what is on disk."""
        self.say(f"     crash at {where!r}")
        self.crashes += 1
        self.gate.crash_in = 0
        self.waits.clear()  # who asked never hears
        self.plane.link.die(uniform(self.seed, "arrived", self.crashes))
        if isinstance(self.disk, File):
            self.disk.close()
            self.disk = File(self.url, self.gate)
        self.plane = self._open()

    def _open(self) -> Plane:
        if isinstance(self.disk, Disk):
            return MemoryPlane(self.disk, self.cluster, self.clock)
        return SqlPlane(self.disk, self.cluster, self.clock, self.plan.policy)

    def _hear(self) -> None:
        """Whoever asked hears the answer."""
        still = []
        for future, accepted in self.waits:
            if not future.done():
                still.append((future, accepted))
                continue
            error = future.exception()
            if error is None:
                accepted()
            elif not isinstance(error, ConflictError | StoreError):
                raise error
        self.waits = still

    def _check(self) -> None:
        sick, crash, self.gate.sick, self.gate.crash_in = self.gate.sick, self.gate.crash_in, 0, 0
        ledger = self.ledger
        ledger.follow(self.disk, self.cluster)
        ledger.meet(self.disk, whole=self.kind == "memory")
        check_truth(ledger, self.cluster)
        if self.plane.engine is not None:
            check_engine(self.plane.engine, ledger)
        self.gate.sick, self.gate.crash_in = sick, crash

    # What happens -------------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        what, at = action.what, action.at
        name = self.cluster.nodes[at % len(self.cluster.nodes)]
        if what in _VERBS:
            self._ask(_VERBS[what], at)
        elif what in {"cordon", "resume"}:
            self._cordon(name, closed=what == "cordon")
        elif what in {"lose", "cut", "return"}:
            {"lose": self.cluster.lose, "cut": self.cluster.cut, "return": self.cluster.come_back}[what](name)
        elif what in {"soil", "sicken"}:
            (self.cluster.soil if what == "soil" else self.cluster.sicken)(name, abs(action.size) * 5)
        elif what not in {"wait", "turn"}:
            getattr(self, f"_{what}")(action)

    def _crash(self, action: Action) -> None:
        self.gate.crash_in = 1 + action.at % 24

    def _die(self, _action: Action) -> None:
        raise CrashError("any moment")

    def _gateway(self, _action: Action) -> None:
        self.plane.link.lose_gateway()

    def _sick(self, action: Action) -> None:
        self.gate.sick, self.gate.written = 1 + action.at % 3, action.words[0] == "all written"

    def _policy(self, action: Action) -> None:
        self.plane.use(action.words[0])

    def _queues(self, action: Action) -> None:
        self.plane.use_queues(QUEUES[int(action.words[0])])

    def _jump(self, action: Action) -> None:
        seconds, whose = action.size**3 * 10, action.words[0]
        if whose != "the cluster's":
            self.clock.offset = max(self.clock.offset + seconds, -1e6)
        if whose != "its own":
            self.cluster.offset = max(self.cluster.offset + seconds, -1e6)

    def _submit(self, action: Action) -> None:
        words, retry, count = action.words
        rule = RETRIES[int(retry)]
        ask = asked(words, rule)
        jobs = [made(0, ask) for _ in range(int(count))]
        self.ledger.asked += [(job, job.state, ask.lasts) for job in jobs]
        future = self.plane.inbox.submit(jobs)
        future.add_done_callback(lambda _future: self.gate.point("an answer"))
        self.waits.append((future, lambda: self.ledger.accepted.update(job.id for job in jobs)))

    def _ask(self, kind: Kind, at: int) -> None:
        known = [number for number, one in self.ledger.jobs.items() if one.state not in FINAL] or [1]
        job = known[at % len(known)]
        accepted = (lambda: self.ledger.cancelled.add(job)) if kind is Kind.CANCELLED else (lambda: None)
        future = self.plane.inbox.ask(kind, job)
        future.add_done_callback(lambda _future: self.gate.point("an answer"))
        self.waits.append((future, accepted))

    def _cordon(self, name: str, *, closed: bool) -> None:
        door, now = self.plane.door, self.clock.now()
        try:
            if closed:
                door.cordon(name, "looked at", now)
            else:
                door.resume(name, now)
        except GpuschedError:
            return  # nobody has heard of this node yet

    # Calm ---------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Nothing goes wrong any more: every job comes to its end, and everything is given back."""
        gate, cluster = self.gate, self.cluster
        gate.crash_in = gate.sick = 0
        cluster.rough = Roughness(0, 0, 0, 0, 0, 0)
        self.clock.offset = cluster.offset = max(self.clock.offset, cluster.offset)
        for name in cluster.nodes:
            cluster.come_back(name)
        cluster.run(cluster.time + 120)
        self._turn()
        self._check()
        going = [(number, one.attempt) for number, one in self.ledger.jobs.items() if one.state in _GOING and one.runs]
        for _ in range(8):
            cluster.run(cluster.time + 8)
            self._turn()
        for key in going:
            really = cluster.attempts.get(key)
            if really is not None and really.how in {"starting", "running"}:
                raise BrokenError(f"attempt {key[1]} of job {key[0]} was told to go, and nobody told it")
        for name in cluster.nodes:
            self._cordon(name, closed=False)
        self.plane.use_queues(LENT if self.seed % 2 else "")
        self._turn()
        self._check()
        for number, one in self.ledger.jobs.items():
            if one.state in WAITING:
                self.plane.inbox.ask(Kind.RELEASED, number)
        self._until_done()
        self.plane.use_queues("")  # now those may go whose queue there was none of
        self._until_done()
        self._settle()

    def _until_done(self) -> None:
        """Let time go by until nothing is left that could happen."""
        cluster = self.cluster
        for turn in range(MOST_TURNS):
            self._turn()
            if turn % 20 == 0:
                self._check()
            engine = self.plane.engine
            assert engine is not None, "the disk is well"
            if not engine.jobs and not cluster.live():
                break
            due = [time - self.clock.offset for time in [engine.next_time()] if time is not None]
            due += [time for time in [cluster.next_time()] if time is not None]
            if not due and self.plane.link.quiet():
                break
            cluster.run(max(min(due, default=0.0), cluster.time))
        self._check()

    def _settle(self) -> None:
        """The end: what was accepted has ended once, what was cancelled did not succeed later, nothing is held."""
        ledger, engine = self.ledger, self.plane.engine
        assert engine is not None, "the disk is well"
        left = {number: str(one.state) for number, one in ledger.jobs.items() if one.state not in FINAL}
        demand(not left, f"in calm these did not end: {left}")
        demand(not self.cluster.live(), f"these run for nobody: {[one.key for one in self.cluster.live()]}")
        ledger.meet(self.disk, whole=True)
        for job in ledger.cancelled:
            state = ledger.jobs[job].state
            demand(state is State.CANCELLED, f"job {job} is {state}, and its user was told that it is cancelled")
        pool = engine.pool
        demand(pool.free == [node.gpus for node in pool.nodes], f"GPUs are held by nobody: {pool.free}")
        demand(not any(pool.open), "a shared GPU is held by nobody")
        demand(not engine.queue.running.jobs, "somebody runs by the books")


def asked(words: str, rule: tuple[str, ...]) -> Ask:
    """The job that the words of a plan ask for; where its pieces shall lie is said as `2x1 GPU within rack`."""
    found = next((one for one in NEAR if f" {one} " in words), "")
    if not found:
        return ask_of(words, retry=rule, retries=LIMIT)
    head, _, rest = words.partition(", ")
    said, work = head.split(" for ")
    said, level = said.split(f" {found} ")
    ask = ask_of(f"{said} for {work}, {rest}", retry=rule, retries=LIMIT)
    wish = TopologyWish(NEAR[found], level)  # type: ignore[arg-type] # one of its words
    return replace(ask, shape=replace(ask.shape, topology=wish))


_GOING = frozenset({State.STOPPING, State.PREEMPTING})
_VERBS = {"cancel": Kind.CANCELLED, "hold": Kind.HELD, "release": Kind.RELEASED, "requeue": Kind.PREEMPTED}
