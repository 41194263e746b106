"""One storm: the real engine between a store and a cluster while everything goes wrong, then calm, in which all ends.

    python tests/storms/storm.py --seed 17 [--store sqlite] [--keep 3,9,12] [--shrink] [-v]

The same seed is the same storm, to the last report. `--shrink` looks for a short one that breaks in the same way.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).absolute().parents[2] / ".src"), str(Path(__file__).absolute().parents[1])]

from builders import cluster as nodes_of
from builders import job as ask_of
from builders import made
from gpusched.cluster.chance import uniform
from gpusched.jobs.errors import ConflictError, GpuschedError, StoreError
from gpusched.jobs.events import Kind
from gpusched.jobs.job import FINAL, WAITING, State
from storm_checks import Ledger, check_engine, check_truth, demand
from storm_cluster import BrokenError, Cluster, Roughness
from storm_plan import CLUSTERS, LENT, QUEUES, RETRIES, Action, Forecast, forecast
from storm_planes import CrashError, Disk, File, Gate, MemoryPlane, Plane, SqlPlane, StormClock, new_file

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
        self.policy, self.queues = self.plan.policy, self.plan.queues
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
            self._crash(str(crash))
        self._hear()

    def _crash(self, where: str) -> None:
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
        what, at, size = action.what, action.at, action.size
        names = list(self.cluster.nodes)
        name = names[at % len(names)]
        if what == "submit":
            self._submit(action)
        elif what in _VERBS:
            self._ask(_VERBS[what], at)
        elif what == "lose":
            self.cluster.lose(name)
        elif what == "return":
            self.cluster.come_back(name)
        elif what in {"cordon", "resume"}:
            self._cordon(name, closed=what == "cordon")
        elif what == "crash":
            self.gate.crash_in = 1 + at % 24
        elif what == "die":
            raise CrashError("any moment")
        elif what == "sick":
            self.gate.sick, self.gate.written = 1 + at % 3, action.words[0] == "all written"
        elif what == "jump":
            self._jump(size * size * size * 10, action.words[0])
        elif what == "policy":
            self.plane.use(action.words[0])
        elif what == "queues":
            self.plane.use_queues(QUEUES[int(action.words[0])])

    def _submit(self, action: Action) -> None:
        words, retry, count = action.words
        rule = RETRIES[int(retry)]
        ask = ask_of(words, retry=rule, retries=2)
        jobs = [made(0, ask) for _ in range(int(count))]
        self.ledger.asked += [(job, job.state, ask.lasts) for job in jobs]
        future = self.plane.inbox.submit(jobs)
        self.waits.append((future, lambda: self.ledger.accepted.update(job.id for job in jobs)))

    def _ask(self, kind: Kind, at: int) -> None:
        known = [number for number, one in self.ledger.jobs.items() if one.state not in FINAL] or [1]
        job = known[at % len(known)]
        accepted = (lambda: self.ledger.cancelled.add(job)) if kind is Kind.CANCELLED else (lambda: None)
        self.waits.append((self.plane.inbox.ask(kind, job), accepted))

    def _cordon(self, name: str, *, closed: bool) -> None:
        door, now = self.plane.door, self.clock.now()
        try:
            if closed:
                door.cordon(name, "looked at", now)
            else:
                door.resume(name, now)
        except GpuschedError:
            return  # nobody has heard of this node yet

    def _jump(self, seconds: float, whose: str) -> None:
        if whose != "the cluster's":
            self.clock.offset = max(self.clock.offset + seconds, -1e6)
        if whose != "its own":
            self.cluster.offset = max(self.cluster.offset + seconds, -1e6)

    # Calm ---------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Nothing goes wrong any more: every job comes to its end, and everything is given back."""
        gate, cluster = self.gate, self.cluster
        gate.crash_in = gate.sick = 0
        cluster.rough = Roughness(0, 0, 0, 0, 0)
        self.clock.offset = cluster.offset = max(self.clock.offset, cluster.offset)
        for name in cluster.nodes:
            cluster.come_back(name)
        cluster.run(cluster.time + 60)
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
        pool = engine.pool
        demand(pool.free == [node.gpus for node in pool.nodes], f"GPUs are held by nobody: {pool.free}")
        demand(not any(pool.open), "a shared GPU is held by nobody")
        demand(not engine.queue.running.jobs, "somebody runs by the books")


_GOING = frozenset({State.STOPPING, State.PREEMPTING})
_VERBS = {"cancel": Kind.CANCELLED, "hold": Kind.HELD, "release": Kind.RELEASED, "requeue": Kind.PREEMPTED}


# Finding, repeating and shortening ---------------------------------------------------------------------------------


def line_for(seed: int, store: str, keep: Collection[int] | None = None) -> str:
    """The command that repeats a storm."""
    kept = "" if keep is None else f" --keep {','.join(map(str, sorted(keep)))}"
    return f"python tests/storms/storm.py --seed {seed} --store {store}{kept} -v"


def weather(
    seed: int,
    store: str,
    folder: Path,
    keep: Collection[int] | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Exception | None:
    """Run one storm; what broke, if anything did."""
    try:
        Storm(seed, store, folder, say).run(keep)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        return error
    return None


def shrink(seed: int, store: str, folder: Path, broken: Exception) -> list[int]:
    """A few of the storm's actions that break it in the same way: halves, then smaller parts, are left out."""
    keep = list(range(STEPS[store]))
    size = len(keep) // 2
    while size:
        at = 0
        while at < len(keep):
            fewer = keep[:at] + keep[at + size :]
            found = weather(seed, store, folder, fewer)
            if type(found) is type(broken):
                keep = fewer
            else:
                at += size
        size //= 2
    return keep


def main() -> None:
    """Repeat one storm, or shorten it."""
    import argparse  # noqa: PLC0415 - only as a program
    import traceback  # noqa: PLC0415 - the same

    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--store", choices=list(STEPS), default="memory")
    parser.add_argument("--keep", default="")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    given = parser.parse_args()
    keep = [int(number) for number in given.keep.split(",")] if given.keep else None
    with tempfile.TemporaryDirectory() as folder:
        if given.shrink:
            broken = weather(given.seed, given.store, Path(folder))
            if broken is not None:
                keep = shrink(given.seed, given.store, Path(folder), broken)
                print(line_for(given.seed, given.store, keep))
        broken = weather(given.seed, given.store, Path(folder), keep, print if given.verbose else lambda _line: None)
    if broken is None:
        print(f"seed {given.seed} on {given.store}: everything held")
        return
    traceback.print_exception(broken)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
