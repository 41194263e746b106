"""Promises are kept: in drawn worlds, in long lives, where nothing is known of run times, and on real traces."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import cluster
from gpusched.cluster.backend import Node
from gpusched.cluster.pool import Pool
from gpusched.jobs.job import Job, Shape
from gpusched.jobs.traces.catalog import read_trace
from gpusched.jobs.traces.generate import Options, generate
from gpusched.jobs.traces.trace import Trace
from gpusched.policies.backfill import Backfill
from gpusched.policies.catalog import load
from gpusched.policies.greedy import Greedy, Policy
from gpusched.policies.order import ORDERS
from gpusched.policies.place import PLACERS
from gpusched.policies.plan import Plan
from gpusched.policies.queue import Queue
from gpusched.policies.testing import LawBrokenError, Promises, check_policy
from gpusched.policies.testing.laws import live
from gpusched.policies.testing.lives import life
from gpusched.policies.testing.world import World
from gpusched.scheduler.simulate import trial

KEPT = Promises(starts=True)
DEPTHS = [1, 2, math.inf]


def policy(depth: float, *, order: str = "arrival", place: str = "best_fit", shortest_first: bool = False) -> Policy:
    return Greedy("backfill", order=ORDERS[order], place=PLACERS[place], blocking=Backfill(depth, shortest_first))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("place", ["best_fit", "spread", "count"])
def test_nobody_starts_later_than_promised(depth, place):
    check_policy(lambda: policy(depth, place=place), promises=KEPT, examples=16)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("order", ["aged_priority", "shortest"])
def test_nor_under_another_order(depth, order):
    check_policy(lambda: policy(depth, order=order), promises=KEPT, examples=16)


@pytest.mark.parametrize("depth", DEPTHS)
def test_nor_when_candidates_go_shortest_first(depth):
    check_policy(lambda: policy(depth, shortest_first=True), promises=KEPT, examples=16)


@pytest.mark.parametrize("name", ["easy", "sjbf", "conservative"])
def test_nobody_starves_among_those_that_never_stop_coming(name):
    check_policy(name, promises=Promises(starts=True, patience=0.0), examples=8)


class Unsaid(World):
    """Of every third job nothing is known but its shape."""

    def submit(self, shape: Shape, lasts: float, priority: int = 50, *, known: bool = True) -> Job:
        return super().submit(shape, lasts, priority, known=known and len(self.jobs) % 3 != 0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_laws_hold_where_nothing_is_known_of_some_run_times(depth):
    for seed in range(15):
        nodes, steps = life(seed)
        live(Unsaid(nodes, lambda: policy(depth), Promises()), steps)


class Wrong(World):
    """Every fourth job runs far longer than was said."""

    def _wait(self, job: Job) -> None:
        if job.id % 4 == 0 and not job.attempt:
            job.estimate = self.left[job.id] / 7
        super()._wait(job)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_laws_hold_and_all_run_where_estimates_are_too_short(depth):
    for seed in range(15):
        nodes, steps = life(seed)
        live(Wrong(nodes, lambda: policy(depth), Promises()), steps)


class Forgetful(Greedy):
    """Promises as EASY does, and then lets everybody start: the law must catch it."""

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        told = dict(queue.promised)
        queue.promised.clear()
        plan = super().plan(now, queue, pool)
        queue.promised.update(told)
        return plan


def test_a_policy_that_forgets_its_promises_is_caught():
    with pytest.raises(LawBrokenError, match="promises are kept"):
        check_policy(
            lambda: Forgetful("forgetful", order=ORDERS["shortest"], blocking=Backfill(2)), promises=KEPT, examples=60
        )


# In the simulator ----------------------------------------------------------------------------------------------------


def kept(trace: Trace, nodes: list[Node], make: Callable[[], Policy]) -> int:
    """Replay it with estimates up to three times too long; how many promises there were, all of them kept."""
    said = [replace_estimate(job, number) for number, job in enumerate(trace.jobs)]
    result = trial(replace(trace, jobs=said), nodes, make(), estimates="trace")
    promised: dict[int, float] = {}
    for _, decision in result.store.decisions():
        for number, start in decision.promises:
            assert start <= promised.get(number, math.inf), (
                f"job {number} was promised {promised[number]}, then {start}"
            )
            promised[number] = start
    starts = {job.id: job.first_start for job in result.run.jobs}
    assert not {number: start for number, start in promised.items() if starts[number] is None or starts[number] > start}
    return len(promised)


def replace_estimate(job, number):
    return job._replace(estimate=job.duration * (1, 2, 3)[number % 3])


@pytest.mark.parametrize("name", ["easy", "sjbf", "conservative", "easy?depth=5"])
def test_every_promise_is_kept_on_a_generated_trace(name):
    options = Options(jobs=1000, seed=3, load=1.1, gpus=64, mix="helios")
    trace = Trace(list(generate(options)), "generated", "generated")
    assert kept(trace, cluster("8x8"), lambda: load(name)) > 20


@pytest.mark.skipif("GPUSCHED_TRACES" not in os.environ, reason="needs the public traces")
@pytest.mark.parametrize(
    ("file", "nodes"),
    [
        ("helios-venus-2020/venus_gpu_jobs_2020-03-18_2020-06-30.csv.gz", 60),
        ("philly-2017/philly.csv.gz", 24),
    ],
)
@pytest.mark.parametrize("name", ["easy", "conservative"])
def test_every_promise_is_kept_on_a_real_trace(file, nodes, name):
    whole = read_trace(str(Path(os.environ["GPUSCHED_TRACES"]) / file))
    trace = replace(whole, jobs=whole.jobs[: 6000 if name == "easy" else 2500])
    assert kept(trace, cluster(f"{nodes}x8"), lambda: load(name)) > 0
