"""A cluster that knows what really runs.

What the control plane believes is its own affair. Here are the processes and the GPUs that they hold: a second live
attempt of a job, or a GPU with two owners, is seen at the moment at which it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from storm_machines import BrokenError, Machines
from storm_plan import CAUSES

from gpusched.cluster.backend import Node, NodeChange
from gpusched.cluster.chance import uniform
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Placement, Shape, State
from gpusched.jobs.outcome import REQUEUE_ME

if TYPE_CHECKING:
    from storm_link import Link

Key = tuple[int, int]
"""(job, attempt)."""

LIVE = frozenset({"starting", "running", "ending"})
CUT = "cut off"
"""Its processes live on a machine that nobody reaches, and hold its GPUs; for the cluster the attempt is lost."""


@dataclass(slots=True)
class Attempt:
    """One attempt as it really is.

    Attributes:
        how: starting, running, ending; cut off; or how it ended: refused, finished, vanished.
        began: when its processes ran; code: its exit code. told: the last report of it, for who asks again.
        forgotten: its node was lost with its result.
    """

    key: Key
    shape: Shape
    placement: Placement
    nodes: tuple[str, ...]
    work: float
    how: str = "starting"
    began: float | None = None
    ends: float = 0.0
    code: int = 0
    told: tuple[Kind, dict[str, Any]] | None = None
    forgotten: bool = False
    said: set[tuple[Kind, int]] = field(default_factory=set)  # how it ended, by all that was ever reported
    turn: int = 0  # an end that was planned in an earlier turn does not happen
    saves: int = 0  # checkpoints that it reported


@dataclass(slots=True)
class Roughness:
    """How bad things are, as chances from 0 to 1."""

    refuse: float = 0.08
    fail: float = 0.15
    vanish: float = 0.06
    again: float = 0.2  # a report that comes twice
    late: float = 0.4  # a report that takes its time
    stuck: float = 0.3  # processes of a machine that comes back which do not end at once


class Cluster:
    """Nodes, processes and time as they are.

    Args:
        nodes: the machines.
        seed: of all chance.

    Attributes:
        time: real seconds. offset: how far the clock that reports carry is ahead of it.
        attempts: every attempt that was ever asked for here.
        links: the control planes' connections. term: the latest under which orders came; older ones are refused.
    """

    def __init__(self, nodes: Sequence[Node], seed: int, base: float) -> None:
        self.seed = seed
        self.time = base
        self.offset = 0.0
        self.machines = Machines.of(nodes)
        self.attempts: dict[Key, Attempt] = {}
        self.work_of: Callable[[int], float] = lambda _job: 0.0  # seconds that a job takes in all
        self.left: dict[int, float] = {}  # what is left of it, of jobs that began
        self.done: set[int] = set()  # jobs of which an attempt exited with 0, and that is known
        self.rough = Roughness()
        self.links: list[Link] = []
        self.term = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._drawn = 0

    # Time ---------------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Let everything happen that is due by then."""
        due = self._due
        while due and due[0][0] <= until:
            self.time, _, happens = heappop(due)
            happens()
        self.time = until

    def next_time(self) -> float | None:
        """When something happens next."""
        return self._due[0][0] if self._due else None

    def after(self, seconds: float, happens: Callable[[], None]) -> None:
        """It happens so much later."""
        self._count += 1
        heappush(self._due, (self.time + seconds, self._count, happens))

    def draw(self, *names: str | int) -> float:
        """A number from 0 to 1 that depends on the names alone."""
        return uniform(self.seed, *names)

    def throw(self) -> float:
        """The next number from 0 to 1."""
        self._drawn += 1
        return uniform(self.seed, "throw", self._drawn)

    # Nodes --------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """Their names."""
        return list(self.machines.all)

    def lose(self, name: str) -> None:
        """A machine dies, and all that runs on it. One that was cut off is dead now, which nobody sees."""
        machine = self.machines.all[name]
        if machine.away and not machine.cut:
            return
        unseen, machine.away, machine.cut = machine.away, True, False
        if not unseen:
            self._tell_node(name)
        for one in self._on(name):
            if one.how in LIVE:
                self._end(one, "vanished", Kind.VANISHED, _gone(name))
            elif one.how == CUT:
                self._cut_ends(one)
            else:
                one.forgotten = True

    def cut(self, name: str) -> None:
        """The network to a machine is gone. What runs there goes on; the cluster counts it as dead."""
        machine = self.machines.all[name]
        if machine.away:
            return
        machine.away = machine.cut = True
        self._tell_node(name)
        for one in self._on(name):
            if one.how in LIVE:
                ran = one.how == "running"
                self._end(one, "vanished", Kind.VANISHED, _gone(name))
                if ran:  # of a gang the pieces elsewhere were ended, and those here go on
                    one.how = CUT
            else:
                one.forgotten = True

    def come_back(self, name: str) -> None:
        """The machine is there again. What still ran there is ended before it is seen; some of it cannot be at once."""
        machine = self.machines.all[name]
        if not machine.away:
            return
        machine.away = machine.cut = False
        stuck = 0
        for one in self._on(name):
            if one.how == CUT:
                self._old_words(one)
                if self.draw("stuck", *one.key) < self.rough.stuck:
                    stuck += sum(
                        piece.gpus for piece, node in zip(one.placement, one.nodes, strict=True) if node == name
                    )
                self._cut_ends(one)
        if stuck:
            self._soil(name, stuck, 60 * self.throw())
        self._tell_node(name)

    def soil(self, name: str, seconds: float) -> None:
        """A GPU of the machine is not well for a while: it is fenced alone."""
        self._soil(name, 1, seconds)
        self._tell_node(name)

    def _soil(self, name: str, gpus: int, seconds: float) -> None:
        machine = self.machines.all[name]
        gpus = min(gpus, machine.node.gpus - machine.dirty)
        machine.dirty += gpus

        def clean() -> None:
            machine.dirty -= gpus
            self._tell_node(name)

        self.after(seconds, clean)

    def sicken(self, name: str, seconds: float) -> None:
        """The machine's agent says that it is not well, and after a while that it is again."""
        machine = self.machines.all[name]
        if machine.ill:
            return
        machine.ill = "unhealthy: its disk is full"
        self._tell_node(name)

        def heal() -> None:
            machine.ill = ""
            self._tell_node(name)

        self.after(seconds, heal)

    def _on(self, name: str) -> list[Attempt]:
        return [one for one in self.attempts.values() if name in one.nodes]

    def _tell_node(self, name: str) -> None:
        for link in self.links:
            link.tell_node(self.as_seen(name))

    def as_seen(self, name: str) -> NodeChange:
        """What there is to say of a node."""
        machine = self.machines.all[name]
        return NodeChange(self.time + self.offset, machine.seen(), gone=machine.away)

    def _old_words(self, one: Attempt) -> None:
        """What an attempt that counts as lost has to say once it is heard again: it saved, it is even done."""
        if self.draw("old words", *one.key) < self.rough.late:
            self._note(one)
            if self.draw("old result", *one.key) < 0.5:
                event = Event(self.time + self.offset, Kind.FINISHED, *one.key, {"exit_code": 0})
                self._send(event, late=8 * self.throw(), after_all=True)
                one.said.add((Kind.FINISHED, 0))

    def _cut_ends(self, one: Attempt) -> None:
        if not any(self.machines.all[name].cut for name in one.nodes):
            one.how = "vanished"

    # Attempts -----------------------------------------------------------------------------------------------------

    def live(self) -> list[Attempt]:
        """What runs within reach: of each job one at most."""
        return [one for one in self.attempts.values() if one.how in LIVE]

    def start(self, job: int, attempt: int, shape: Shape, placement: Placement, nodes: tuple[str, ...]) -> None:
        """Start an attempt, all or nothing."""
        key = (job, attempt)
        found = self.attempts.get(key)
        if found is not None:
            self._repeat(found)
            return
        if job in self.done:
            raise BrokenError(f"attempt {attempt} of job {job} starts, and the job had succeeded")
        other = next((one.key for one in self.live() if one.key[0] == job), None)
        if other is not None:
            raise BrokenError(f"attempt {attempt} of job {job} starts while attempt {other[1]} lives")
        one = Attempt(key, shape, placement, nodes, self.left.setdefault(job, self.work_of(job)))
        self.attempts[key] = one
        refused = not self.machines.reachable(nodes) or self.draw("refuse", *key) < self.rough.refuse
        if refused or self.machines.crowded(self.live()):  # the newest comes last: where a GPU is fenced it has no room
            node = nodes[int(self.draw("refuser", *key) * len(nodes))]
            self._end(one, "refused", Kind.REFUSED, {"message": "no room for it", "cause": "start", "node": node})
            return
        self.after(5 * self.draw("start", *key), lambda: self._begin(one))

    def _begin(self, one: Attempt) -> None:
        if one.how != "starting":
            return
        one.how, one.began = "running", self.time
        self._tell(one, Kind.STARTED, {})
        fate, part = self.draw("fate", *one.key), self.draw("when", *one.key)
        rough = self.rough
        if self.draw("saves", *one.key) < rough.late:
            self.after(one.work * self.draw("save", *one.key), lambda: self._note(one))
        if fate < rough.vanish:
            self._plan(one, one.work * part, -1)
        elif fate < rough.vanish + rough.fail:
            code = (1, 3, 75, 137)[int(4 * self.draw("code", *one.key))]
            self._plan(one, one.work * part, code)
        else:
            self._plan(one, one.work, 0)

    def _plan(self, one: Attempt, seconds: float, code: int) -> None:
        one.turn += 1
        one.ends = self.time + seconds
        turn = one.turn
        self.after(seconds, lambda: self._ends(one, turn, code))

    def _ends(self, one: Attempt, turn: int, code: int) -> None:
        if one.turn != turn or one.how not in LIVE:
            return
        if code < 0:
            self._end(one, "vanished", Kind.VANISHED, {"message": "its Runner is gone"})
            return
        one.code = code
        data: dict[str, Any] = {"exit_code": code}
        if code not in {0, REQUEUE_ME, 143}:
            data |= CAUSES[int(self.draw("cause", *one.key) * len(CAUSES))]
        if code and one.began is not None:
            kept = min(self.time - one.began, one.work)
            self.left[one.key[0]] = one.work - kept
            data |= {"kept": kept, "lost": 0.0, "overhead": 0.0}
        self._end(one, "finished", Kind.FINISHED, data)

    def stop(self, job: int, attempt: int, grace: float) -> None:
        """End an attempt within the grace."""
        one = self.attempts.get((job, attempt))
        if one is None:
            self._send(Event(self.time + self.offset, Kind.FINISHED, job, attempt, dict(_NOT_RUNNING)), late=0.0)
        elif one.how not in LIVE:
            self._repeat(one)
            if one.how != "finished":
                self._send(Event(self.time + self.offset, Kind.FINISHED, job, attempt, dict(_NOT_RUNNING)), late=0.0)
        elif one.how == "starting":
            if self.draw("stopped too early", job, attempt) < self.rough.refuse * 6:
                self._end(one, "refused", Kind.REFUSED, {"message": "no room for it"})
            else:
                one.how = "ending"
                self._plan(one, self.draw("stop", job, attempt), 143)
        elif one.how == "running":
            one.how = "ending"
            within = min(grace, 8.0) * self.draw("stop", job, attempt)
            if self.time + within >= one.ends:
                return  # it is done before
            fate = self.draw("stopped", job, attempt)
            self._plan(one, within, 75 if fate < 0.2 else 1 if fate < 0.3 else 0 if fate < 0.35 else 143)

    def _end(self, one: Attempt, how: str, kind: Kind, data: dict[str, Any]) -> None:
        one.how = how
        if kind is Kind.FINISHED and one.code == 0:
            self.done.add(one.key[0])
        self._tell(one, kind, data)

    def _repeat(self, one: Attempt) -> None:
        """Say again how it stands."""
        if one.forgotten and one.how == "finished":
            one.how, one.forgotten = "vanished", False
            self.done.discard(one.key[0])
            one.told = (Kind.VANISHED, {"message": "its node is gone, and how it ended with it"})
        if one.told is not None:
            self._tell(one, *one.told)

    def obey(self, term: int, order: Callable[[], None]) -> None:
        """Carry an order out, unless a control plane of a later term has given one."""
        if term >= self.term:
            self.term = term
            order()

    def adopt(self, named: dict[Key, State], others: Collection[Key] = ()) -> None:
        """What the control plane goes on with; nothing else may run, but what is asked for next."""
        stray = [one.key for one in self.live() if one.key not in named and one.key not in others]
        if stray:
            raise BrokenError(f"attempt {stray[0][1]} of job {stray[0][0]} runs, and the store knows nothing of it")
        for (job, attempt), state in named.items():
            one = self.attempts.get((job, attempt))
            if one is not None:
                self._repeat(one)
                continue
            never = state is State.STARTING
            kind = Kind.REFUSED if never else Kind.VANISHED
            self._send(
                Event(self.time + self.offset, kind, job, attempt, {"message": "it was never started"}), late=0.0
            )

    def _tell(self, one: Attempt, kind: Kind, data: dict[str, Any]) -> None:
        one.told = (kind, data)
        one.said.add((kind, one.code))
        event = Event(self.time + self.offset, kind, *one.key, dict(data))
        late = self.rough.late
        # The start of an attempt may come after its end; of two ends the first comes first.
        self._send(event, late=8 * self.throw() if self.throw() < late else 0.0, after_all=kind is not Kind.STARTED)
        if self.throw() < self.rough.again:
            self._send(event, late=20 * self.throw())

    def _send(self, event: Event, *, late: float, after_all: bool = False) -> None:
        for link in self.links:
            link.tell(event, late, in_order=after_all)

    def _note(self, one: Attempt) -> None:
        """It says that its work is saved, and how far it is. From a machine that is cut off nobody hears it."""
        if one.how not in LIVE and one.how != CUT:
            return
        if not self.machines.reachable(one.nodes):
            return
        one.saves += 1
        now = self.time + self.offset
        saved = {"step": one.saves, "time": now, "attempt": one.key[1]}
        self._send(Event(now, Kind.CHECKPOINTED, *one.key, saved), late=8 * self.throw())
        self._send(Event(now, Kind.PROGRESSED, *one.key, {"fraction": self.throw()}), late=8 * self.throw())


def _gone(name: str) -> dict[str, Any]:
    return {"message": f"node {name} is gone", "cause": "node_lost"}


_NOT_RUNNING = {"exit_code": 143, "message": "it does not run"}
