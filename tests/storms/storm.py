"""One storm: the real engine between a store and a cluster while everything goes wrong, then calm, in which all ends.

The same seed is the same storm, to the last report. storm_replay.py repeats one and makes it short.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from storm_checks import Ledger, check_engine, check_nodes, check_truth, demand
from storm_cluster import Cluster, Roughness
from storm_machines import BrokenError
from storm_plan import BEGINS, LENT, LIMIT, NEAR, QUEUES, RETRIES, Action, Forecast, forecast
from storm_planes import CrashError, Disk, Gate, MemoryPlane, Plane, StormClock
from storm_sql import File, SqlPlane, new_file

from builders import Ask, made
from builders import cluster as nodes_of
from builders import job as ask_of
from gpusched.cluster.chance import uniform
from gpusched.jobs.errors import ConflictError, GpuschedError, StoreError, UnreachableError
from gpusched.jobs.events import Kind
from gpusched.jobs.job import FINAL, WAITING, Job, State, TopologyWish
from gpusched.jobs.spec import JobSpec
from gpusched.scheduler.node_orders import Window

STEPS = {"memory": 110, "sqlite": 60, "postgres": 40}
MOST_TURNS = 4000
"""Turns of calm in which everything must have ended."""


class Storm:
    """One run. Raises BrokenError, or whatever the product raised and should not have."""

    def __init__(
        self,
        seed: int,
        store: str,
        folder: Path,
        say: Callable[[str], None] = lambda _line: None,
        new_database: Callable[[], str] = str,
    ) -> None:
        self.seed = seed
        self.plan: Forecast = forecast(seed, STEPS[store])
        self.say = say
        self.gate = Gate()
        self.cluster = Cluster(nodes_of(self.plan.cluster), seed, BEGINS)
        if seed % 5 == 3:
            self.cluster.rough.fail = 0.6
        self.clock = StormClock(self.cluster)
        self.ledger = Ledger(say=say)
        self.cluster.work_of = self._work
        self.kind = store
        self.folder = folder
        self.disk: Disk | File
        self.url = ""
        if store == "memory":
            self.disk = Disk(self.gate)
            self.disk.policy, self.disk.queues = self.plan.policy, self.plan.queues
        elif store == "postgres":
            self.url = new_database()
            self.disk = File(self.url, self.gate)
        else:
            self.disk, self.url = new_file(folder, self.gate)
        self.waits: list[tuple[Future[Any], Callable[[], None]]] = []
        self.unanswered: list[tuple[list[Job], Future[Any], Plane]] = []  # submissions of which nobody heard
        self.crashes = self.owners = 0
        self.plane = self._open()
        self.rival: SqlPlane | None = None  # stands by, or was frozen and may think that it leads
        if store != "memory" and self.plan.queues:
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
            for plane in (self.plane, self.rival):
                if isinstance(plane, SqlPlane):
                    plane.store.close()

    def _step(self, action: Action) -> None:
        self.cluster.run(self.cluster.time + action.wait)
        self._at_risk(lambda: self._do(action))
        for _ in range(action.turns):
            self._turn()
        self._check()

    def _turn(self) -> None:
        self.cluster.run(self.cluster.time + 0.01)
        self._at_risk(self.plane.turn)
        if self.rival is not None:
            self.rival.turn()
            if self.rival.leads:  # whoever led has not looked at its lease for too long
                self._swap()

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
        self.gate.crash_in = self.gate.freeze_in = 0
        self.waits.clear()  # who asked never hears
        self.plane.link.die(uniform(self.seed, "arrived", self.crashes))
        if isinstance(self.plane, SqlPlane):
            self.plane.store.close()
            self.disk = File(self.url, self.gate)
        self.plane = self._open()

    def _open(self) -> Plane:
        if isinstance(self.disk, Disk):
            return MemoryPlane(self.disk, self.cluster, self.clock)
        self.owners += 1
        return SqlPlane(self.disk, self.cluster, self._machine, self.plan.policy, f"plane {self.owners}")

    def _machine(self) -> float:
        """How far the clock of the control planes' machine is off."""
        return self.clock.offset

    def _freeze(self, action: Action) -> None:
        """The leader will stand still at some point for longer than its lease; another one takes over meanwhile."""
        if self.kind == "memory":
            return
        gate = self.gate
        gate.frozen = self._frozen
        gate.freeze_at = ("", "start of", "after a commit")[action.at % 3]
        gate.freeze_in = 1 + action.at % (4 if gate.freeze_at else 24)

    def _another(self, _action: Action) -> None:
        """Another control plane is started beside the one that leads."""
        if self.kind != "memory":
            self._standby()

    def _frozen(self, where: str) -> None:
        self.say(f"     frozen at {where!r}")
        rival = self._standby()
        for _ in range(12):
            self.cluster.run(self.cluster.time + 3)
            rival.turn()
        demand(rival.leads, "nobody takes over from a control plane that stands still")

    def _standby(self) -> SqlPlane:
        """Another control plane on the same database, which stands by."""
        if self.rival is None:
            self.owners += 1
            store = File(self.url, Gate())
            self.rival = SqlPlane(store, self.cluster, self._machine, self.plan.policy, f"plane {self.owners}")
            self.rival.turn()
        return self.rival

    def _swap(self) -> None:
        """Users talk to whoever leads."""
        assert isinstance(self.plane, SqlPlane), "only those have a lease"
        assert self.rival is not None, "it leads"
        self.plane, self.rival = self.rival, self.plane
        self.rival.gate.calm()
        self.gate, self.disk = self.plane.gate, self.plane.store

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
            elif not isinstance(error, ConflictError | StoreError | UnreachableError):
                raise error
        self.waits = still

    def _check(self) -> None:
        gate = self.gate
        before = gate.sick, gate.crash_in, gate.freeze_in, gate.sever_in
        gate.calm()
        ledger = self.ledger
        ledger.follow(self.disk, self.cluster)
        ledger.meet(self.disk, whole=self.kind == "memory")
        check_truth(ledger, self.cluster)
        if self.plane.engine is not None:
            check_engine(self.plane.engine, ledger)
            check_nodes(self.plane.engine, self.disk, self.plane.ticked)
        gate.sick, gate.crash_in, gate.freeze_in, gate.sever_in = before

    # What happens -------------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        what, at = action.what, action.at
        name = self.cluster.nodes[at % len(self.cluster.nodes)]
        if what in _VERBS:
            self._ask(_VERBS[what], at)
        elif what in {"cordon", "resume", "drain"}:
            self._order(what, name, action.size)
        elif what in {"lose", "cut", "return"}:
            {"lose": self.cluster.lose, "cut": self.cluster.cut, "return": self.cluster.come_back}[what](name)
        elif what in {"soil", "sicken"}:
            (self.cluster.soil if what == "soil" else self.cluster.sicken)(name, abs(action.size) * 5)
        elif what not in {"wait", "turn"}:
            getattr(self, f"_{what}")(action)

    def _crash(self, action: Action) -> None:
        self.gate.crash_in = 1 + action.at % 24

    def _sever(self, action: Action) -> None:
        """The database ends the connection at some point, if it is a server."""
        self.gate.sever_in = 1 + action.at % 12

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
        ask, rule = asked(words), RETRIES[int(retry)]
        jobs = [made(0, ask) for _ in range(int(count))]
        spec = {"run": "true", "retry": {"limit": LIMIT, **rule}, "checkpoint": {"grace": "30s"}}
        for job in jobs:
            job.spec = JobSpec.model_validate(spec) if rule else None
            job.uid = f"{len(self.ledger.asked):026}"
            self.ledger.asked[job.uid] = (copy(job), job.state, ask.lasts)
        self._send(jobs)

    def _send(self, jobs: list[Job]) -> None:
        future = self.plane.inbox.submit(jobs)
        gate = self.gate
        future.add_done_callback(lambda _future: gate.point("an answer"))
        call = jobs, future, self.plane
        self.unanswered.append(call)

        def accepted() -> None:
            self.unanswered.remove(call)
            self.ledger.accepted.update(job.id for job in jobs)

        self.waits.append((future, accepted))

    def _repeat(self, action: Action) -> None:
        """A client that heard nothing, or of a failure, sends the same submission again, under the same key."""
        lost = [call for call in self.unanswered if call[1].done() or call[2] is not self.plane]
        if not lost:
            return
        call = lost[action.at % len(lost)]
        self.unanswered.remove(call)
        self.ledger.follow(self.disk, self.cluster)
        if call[0][0].uid in self.ledger.known:
            return  # it is told so, as by scheduler/once.py
        self._send([copy(self.ledger.asked[job.uid][0]) for job in call[0]])

    def _work(self, number: int) -> float:
        """Seconds that a job takes."""
        job = self.disk.job(number)
        assert job is not None, "it is written before it is started"
        return self.ledger.asked[job.uid][2]

    def _ask(self, kind: Kind, at: int) -> None:
        known = [number for number, one in self.ledger.jobs.items() if one.state not in FINAL] or [1]
        job = known[at % len(known)]
        accepted = (lambda: self.ledger.cancelled.add(job)) if kind is Kind.CANCELLED else (lambda: None)
        future = self.plane.inbox.ask(kind, job)
        future.add_done_callback(lambda _future: self.gate.point("an answer"))
        self.waits.append((future, accepted))

    def _order(self, what: str, name: str, size: float = 0) -> None:
        """Cordon, drain or resume a node, as an administrator does."""
        try:
            if what == "cordon":
                self.plane.cordon(name)
            elif what == "resume":
                self.plane.resume(name)
            else:
                self.plane.drain(name, None if size < 0 else size * 4)
        except GpuschedError:
            return  # nobody has heard of this node yet, or the database fails

    def _window(self, action: Action) -> None:
        """A maintenance window is planned."""
        now, name = self.cluster.time + self.plane.offset, self.cluster.nodes[action.at % len(self.cluster.nodes)]
        start = now + abs(action.size) * 5
        nodes = () if action.size == -1 else (name,)
        window = Window(0, start, start + 30 + action.at % 60, nodes=nodes, everywhere=not nodes, lead=20.0)
        self.plane.change_windows([*self.plane.windows(), window])

    def _call_off(self, _action: Action) -> None:
        """All windows are called off."""
        self.plane.change_windows([])

    # Calm ---------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Nothing goes wrong any more: every job comes to its end, and everything is given back."""
        cluster = self.cluster
        self.gate.calm()
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
        self._open_all()
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

    def _open_all(self) -> None:
        """Every node takes work; also those that are cordoned because jobs failed there."""
        self.plane.change_windows([])
        for name in self.cluster.nodes:
            self._order("resume", name)

    def _until_done(self) -> None:
        """Let time go by until nothing is left that could happen."""
        cluster = self.cluster
        for turn in range(MOST_TURNS):
            self._turn()
            if turn % 20 == 0:
                self._open_all()
                self._check()
            engine = self.plane.engine
            assert engine is not None, "the disk is well"
            if not engine.jobs and not cluster.live():
                break
            due = [time - self.plane.offset for time in [engine.next_time()] if time is not None]
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


def asked(words: str) -> Ask:
    """The job that the words of a plan ask for; where its pieces shall lie is said as `2x1 GPU within rack`."""
    found = next((one for one in NEAR if f" {one} " in words), "")
    if not found:
        return ask_of(words)
    head, _, rest = words.partition(", ")
    said, work = head.split(" for ")
    said, level = said.split(f" {found} ")
    ask = ask_of(f"{said} for {work}, {rest}")
    wish = TopologyWish(NEAR[found], level)  # type: ignore[arg-type] # one of its words
    return replace(ask, shape=replace(ask.shape, topology=wish))


_GOING = frozenset({State.STOPPING, State.PREEMPTING})
_VERBS = {"cancel": Kind.CANCELLED, "hold": Kind.HELD, "release": Kind.RELEASED, "requeue": Kind.PREEMPTED}
