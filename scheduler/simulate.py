"""A trial: the same engine, with a simulated cluster, the memory store and a virtual clock.

What is here puts them together and feeds the trace's arrivals to the engine as if users had submitted them. The rules,
which the published reference results share: at each instant all completions release first, then all arrivals
join, then one pass of the policy; times are the trace's own numbers, whole seconds stay whole.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..cluster.backend import Backend, Node
from ..cluster.clock import VirtualClock
from ..cluster.pool import Pool
from ..cluster.profile import ZERO, Profile
from ..cluster.profile import at as at_size
from ..cluster.simulated_backend import SimulatedBackend
from ..jobs.errors import ConflictError, PlanError, TraceError
from ..jobs.events import Event, Kind, event_of
from ..jobs.job import Job, Shape
from ..jobs.traces.trace import Trace, TraceJob
from ..policies.greedy import Greedy, Policy
from ..policies.reasons import never
from ..policies.tree import Tree
from .door import Door
from .engine import Engine
from .garbage import garbage_kept
from .node_orders import Window
from .queues.admission import place, screen
from .report import Run
from .requests import Inbox
from .store import MemoryStore, Store

_SUBMITTED = Kind.SUBMITTED  # members of an Enum are slow to look up on the hot path

Progress = Callable[[int, int], None]
"""Told now and then how many jobs have arrived, of how many."""

ESTIMATES = ("exact", "trace", "none")
"""What policies are told of a job's run time: the truth (an oracle), what the trace's users asked for, or nothing."""


class Arrivals:
    """The trace as an inbox: each job is submitted at its time."""

    def __init__(
        self,
        trace: Trace,
        jobs: Sequence[TraceJob],
        backend: SimulatedBackend,
        *,
        estimates: str,
        progress: Progress | None,
        profile: Profile = ZERO,
        tree: Tree | None = None,
    ) -> None:
        self._jobs = jobs
        self._tree = tree
        self._model = trace.model if trace.models and profile.rates_by_model else None
        self._next = 0
        self._due = jobs[0].submitted if jobs else math.inf  # when the next one arrives
        self._backend = backend
        self._exact = estimates == "exact"
        self._told = estimates != "none"
        self._retry = profile.retry
        self._saves = profile.checkpoints.interval
        self._stops = profile.estimates_are_limits
        self._progress = progress

    def poll(self, now: float) -> Sequence[Event]:
        """The jobs that arrive by now, in the trace's order."""
        if now < self._due:
            return ()
        jobs, at, model, tree, saves = self._jobs, self._next, self._model, self._tree, self._saves
        arrived: list[Event] = []
        expect, exact, told, retry, stops = self._backend.expect, self._exact, self._told, self._retry, self._stops
        while self._due <= now:
            number, name, submitted, duration, shape, user, queue, priority, estimate, _, limit, _ = jobs[at]
            job_id = number + 1
            job = Job(job_id, shape, submitted)
            job.name, job.user, job.queue, job.priority, job.limit = name, user, queue, priority, limit
            job.preemptible = True
            if told:
                job.estimate = duration if exact else estimate
            if retry is not None:
                job.retry = retry
            if saves is not None:
                job.saves_every = at_size(saves, shape.total_gpus, math.inf)
            if tree is not None:
                place(tree, job)
            if stops and limit is None:
                job.limit = estimate
            expect(job_id, duration, model(name) if model else "")
            arrived.append(event_of((submitted, _SUBMITTED, job_id, 0, job)))
            at += 1
            self._due = jobs[at].submitted if at < len(jobs) else math.inf
            if not at & 1023 and self._progress is not None:
                self._progress(at, len(jobs))
        self._next = at
        return arrived

    def next_time(self) -> float | None:
        """The next arrival."""
        return None if self._due == math.inf else self._due

    def settle(self, refused: dict[int, ConflictError]) -> None:
        """A trace asks for nothing that can be refused."""
        assert not refused, refused


class _TimedEngine(Engine):
    """The engine with a stopwatch on each decision: the policy's plan, checked and applied."""

    def __init__(self, *, store: Store, backend: Backend, policy: Policy, inbox: Inbox) -> None:
        super().__init__(store=store, backend=backend, policy=policy, inbox=inbox)
        self.decision_seconds: list[float] = []

    def _decide(self, now: float) -> None:
        if not self.queue:  # nothing to decide
            super()._decide(now)
            return
        begun = time.perf_counter()
        super()._decide(now)
        self.decision_seconds.append(time.perf_counter() - begun)


@dataclass(frozen=True, slots=True)
class Trial:
    """A run with what it leaves behind, for tests that look closer than a report does."""

    run: Run
    engine: Engine
    store: MemoryStore


def simulate(
    trace: Trace,
    nodes: Sequence[Node],
    policy: Policy,
    *,
    estimates: str = "exact",
    profile: Profile | None = None,
    seed: int = 0,
    tree: Tree | None = None,
    windows: Sequence[Window] = (),
    progress: Progress | None = None,
    timing: bool = False,
) -> Run:
    """Replay a trace under a policy.

    Jobs that no idle cluster of these nodes could hold, or that their queue could never start, are left out and named
    in `Run.rejected`.

    Args:
        trace: the jobs, with their true run times.
        nodes: the cluster.
        policy: who decides.
        estimates: what the policy knows of run times, one of ESTIMATES.
        profile: what start-up, checkpoints, restarts and so on cost, and what fails; None = nothing does.
        seed: of all chance in the profile. Under one seed every policy meets the same faults.
        tree: the queues, which jobs name as the trace does; None = no queue has a limit.
        windows: maintenance of the nodes, in the trace's seconds.
        progress: told how far the arrivals are.
        timing: measure the wall time of each decision, for `Run.decision_seconds`.

    Raises:
        PlanError: the policy returned a plan that breaks a rule, or, if it is not one of ours, raised something.
        SpecError: the profile does not say how fast the jobs run on this cluster.
        TraceError: the trace or the cluster is empty, or jobs are for queues that are not in the tree.
    """
    return trial(
        trace,
        nodes,
        policy,
        estimates=estimates,
        profile=profile,
        seed=seed,
        tree=tree,
        windows=windows,
        progress=progress,
        timing=timing,
    ).run


def trial(
    trace: Trace,
    nodes: Sequence[Node],
    policy: Policy,
    *,
    estimates: str = "exact",
    profile: Profile | None = None,
    seed: int = 0,
    tree: Tree | None = None,
    windows: Sequence[Window] = (),
    progress: Progress | None = None,
    timing: bool = False,
) -> Trial:
    """As `simulate`, with the engine and the store as they are at the end."""
    if not nodes:
        raise TraceError("the cluster has no nodes")
    with _blamed(policy):
        fitting, rejected = _screen(trace.jobs, _empty(nodes, tree), policy, tree)
    if isinstance(policy, Greedy):
        policy.expect((job.shape for job in fitting), max(node.gpus for node in nodes))
    profile = profile or ZERO
    profile.check(nodes, {job.shape for job in fitting})
    backend = SimulatedBackend(nodes, profile=profile, seed=seed)
    store = MemoryStore()
    inbox = Arrivals(trace, fitting, backend, estimates=estimates, progress=progress, profile=profile, tree=tree)
    door: Backend = Door(backend, windows=windows) if windows else backend
    engine = (_TimedEngine if timing else Engine)(store=store, backend=door, policy=policy, inbox=inbox)
    if tree is not None:
        engine.use_tree(tree)
    begun = time.perf_counter()
    with garbage_kept(), _blamed(policy):
        engine.run(VirtualClock(fitting[0].submitted if fitting else 0.0))
    seconds = time.perf_counter() - begun
    _audit(engine, fitting)
    if progress is not None:
        progress(len(fitting), len(fitting))
    run = Run(
        policy=policy.name,
        trace=trace.name,
        cluster=list(nodes),
        jobs=list(store.jobs.values()),
        journal=[event for event in store.journal if event.job],  # of the jobs
        rejected=rejected,
        seconds=seconds,
        notes=trace.remarks(),
        epoch=trace.epoch,
        decision_seconds=engine.decision_seconds if isinstance(engine, _TimedEngine) else (),
    )
    return Trial(run, engine, store)


def _empty(nodes: Sequence[Node], tree: Tree | None) -> Pool:
    """The idle cluster, with the site's levels of the topology."""
    return Pool(nodes) if tree is None or not tree.topology else Pool(nodes, tree.topology)


def _screen(
    jobs: list[TraceJob], pool: Pool, policy: Policy, tree: Tree | None
) -> tuple[list[TraceJob], list[tuple[str, str]]]:
    """The jobs that this cluster and their queues could ever hold, and (name, why) of the others."""
    verdicts: dict[Shape, str] = {}
    for job in jobs:
        shape = job.shape
        if shape not in verdicts:
            token = never(shape, pool, policy.place)
            verdicts[shape] = "" if token is None else f"{token}: needs {shape}"
    by_queue = {} if tree is None else screen(tree, jobs)
    if not any(verdicts.values()) and not any(by_queue.values()):
        return jobs, []

    def verdict(job: TraceJob) -> str:
        return verdicts[job.shape] or by_queue.get((job.queue, job.shape), "")

    return [job for job in jobs if not verdict(job)], [(job.name, why) for job in jobs if (why := verdict(job))]


def _audit(engine: Engine, submitted: Sequence[TraceJob]) -> None:
    """Nothing is lost: submitted = finished + still in the engine, and what has ended has given all back."""
    assert engine.finished + len(engine.jobs) == len(submitted), (
        f"{len(submitted)} jobs were submitted, {engine.finished} finished and {len(engine.jobs)} are left"
    )
    if not engine.jobs:
        pool = engine.pool
        assert pool.free == [node.gpus for node in pool.nodes], "GPUs were not given back"
        assert not any(pool.open), "shared GPUs were not given back"


@contextmanager
def _blamed(policy: Policy) -> Iterator[None]:
    """What goes wrong under a user's own policy is said to be the policy's, with the line of its file."""
    by = f"policy {policy.name}/{policy.version}"
    try:
        yield
    except PlanError as error:
        if error.message.startswith("policy "):
            raise
        raise PlanError(f"{by}: {error.message}", hint=error.hint) from error
    except BrokenPipeError:
        raise  # whoever watched the progress has gone
    except (Exception, SystemExit) as error:  # a policy that calls sys.exit() must not end the command in silence
        module = type(policy).__module__
        if module.partition(".")[0] == __name__.partition(".")[0]:
            raise
        file = getattr(sys.modules.get(module), "__file__", None)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""
        raise PlanError(
            f"{by} failed: {type(error).__name__}: {error}{where}",
            hint="gpusched.policies.testing.check_policy puts it under the laws of a policy; -v shows the traceback",
        ) from error
