"""Mistakes that published simulators make, each as a test that this one does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpusched
from builders import World, cluster, job, trace
from gpusched.cluster.backend import Node
from gpusched.jobs.errors import PlanError
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Piece, Shape
from gpusched.jobs.traces.trace import Trace, TraceJob
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.greedy import Greedy
from gpusched.policies.plan import Plan, Preemption, Start
from gpusched.scheduler.report import summarize
from gpusched.scheduler.simulate import simulate, trial


class Planned(Greedy):
    """Starts exactly what the test says, once."""

    def __init__(self, *starts: tuple[int, tuple[Piece, ...]], preempt: tuple[int, ...] = ()) -> None:
        super().__init__("planned")
        self.starts, self.preempt = starts, preempt

    def plan(self, now, queue, pool):  # noqa: ARG002 - the protocol's
        jobs = {one.id: one for one in queue.in_order()}
        return Plan(
            starts=[Start(jobs[number], pieces) for number, pieces in self.starts],
            preemptions=[Preemption(jobs[number]) for number in self.preempt],
        )


# 1 Double booking -----------------------------------------------------------------------------------------------------

BAD_PLANS = {
    "two jobs on the same GPUs": (Planned((1, (Piece(0, 8),)), (2, (Piece(0, 8),))), "does not fit node n0"),
    "one job started twice": (Planned((1, (Piece(0, 8),)), (1, (Piece(1, 8),))), "starts job 1, twice"),
    "more than the node has": (Planned((1, (Piece(2, 8),))), "does not fit node n2"),
    "a gang in part": (Planned((3, (Piece(0, 4),))), "in part"),
    "a gang in other pieces": (Planned((3, (Piece(0, 8),))), "in part"),
    "fewer GPUs than asked for": (Planned((1, (Piece(0, 4),))), "in part"),
    "a total in part": (Planned((4, (Piece(0, 8), Piece(1, 3)))), "in part"),
    "a total with a piece below nothing": (Planned((4, (Piece(0, 8), Piece(1, 8), Piece(2, -4)))), "in part"),
    "a job nowhere": (Planned((8, ())), "in part"),
    "a wrong type": (Planned((5, (Piece(0, 1),))), "may not use"),
    "a wrong label": (Planned((6, (Piece(0, 1),))), "may not use"),
    "two pieces on one node that stay apart": (Planned((7, (Piece(0, 1), Piece(0, 1)))), "two pieces"),
    "a node that does not exist": (Planned((1, (Piece(99, 8),))), "may not use"),
    "a node before the first": (Planned((1, (Piece(-1, 8),))), "may not use"),
    "a job preempted that waits": (Planned(preempt=(1,)), "does not run"),
}


@pytest.mark.parametrize(("policy", "says"), BAD_PLANS.values(), ids=BAD_PLANS)
def test_a_bad_plan_is_refused_loudly_and_whole(policy, says):
    """The second of two starts may be the bad one: the first is not done either."""
    world = World(cluster("2x8:A100 1x4"), policy)
    before = world.store.events()
    with pytest.raises(PlanError, match=says):
        world.submit(
            job("8 GPUs"),
            job("8 GPUs"),
            job("2x4 GPUs"),
            job("12 GPUs in total"),
            job("1 H100 GPU"),
            job("1 GPU, rack=a"),
            job("2x1 GPU, apart"),
            job("no GPU"),
        )
    assert world.store.events() == before
    assert world.engine.pool.free == [8, 8, 4]
    assert world.backend.started == []


@pytest.mark.parametrize("policy", ["fifo", "binpack", "gang", "shortest+spread+skip"])
def test_no_instant_gives_out_more_than_there_is(policy):
    """Counted from the journal alone."""
    nodes = cluster("2x8 1x4")
    run = simulate(busy(), nodes, load(policy))
    used = [0.0] * len(nodes)
    held = {}
    for event in run.journal:
        if event.kind is Kind.PLACED:
            held[event.job] = event.data
            for piece in event.data:
                used[piece.node] += piece.gpus + piece.gpu_milli / 1000
        elif event.kind is Kind.SUCCEEDED:
            for piece in held.pop(event.job):
                used[piece.node] -= piece.gpus + piece.gpu_milli / 1000
        assert all(gpus <= node.gpus + 1e-9 for gpus, node in zip(used, nodes, strict=True))
    assert not held


def busy(count: int = 200) -> Trace:
    words = ["1 GPU", "4 GPUs", "2x4 GPUs", "0.5 GPU", "8 GPUs", "12 GPUs in total", "3 GPUs", "no GPU"]
    return trace(
        *[
            job(f"{words[(number * number) % 8]} for {number * 7 % 50 + 1} s", at=number * 3 // 2)
            for number in range(count)
        ]
    )


# 2 Silent loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", CATALOG)
def test_submitted_is_finished_plus_a_named_rest(policy):
    of = busy()
    of.jobs.append(TraceJob(len(of.jobs), "too-wide", of.jobs[-1].submitted, 5, Shape(1, 9)))
    run = simulate(of, cluster("2x8 1x4"), load(policy))
    figures = summarize(run)
    assert figures.submitted == len(of.jobs) == figures.finished + len(figures.unfinished) + len(figures.rejected)
    assert [name for name, _ in figures.rejected] == ["too-wide"]


class Stubborn(Greedy):
    """Starts nothing that is wider than 4 GPUs, and says nothing about it."""

    def __init__(self) -> None:
        super().__init__("stubborn")

    def plan(self, now, queue, pool):
        plan = super().plan(now, queue, pool)
        plan.starts = [start for start in plan.starts if start.job.shape.total_gpus <= 4]
        return plan


def test_jobs_that_a_policy_never_starts_are_named_and_not_lost():
    done = trial(trace(job("4 GPUs for 3 s"), job("8 GPUs for 3 s", name="wide")), cluster("2x8"), Stubborn())
    figures = summarize(done.run)
    assert (figures.submitted, figures.finished) == (2, 1)
    assert len(figures.unfinished) == 1
    assert "wide" in figures.unfinished[0]
    assert done.engine.jobs.keys() == {2}


# 3 Completion times reset by a requeue --------------------------------------------------------------------------------


class Robber(Greedy):
    """Takes everything back once, at 10 s."""

    def __init__(self) -> None:
        super().__init__("robber")
        self.first = None

    def plan(self, now, queue, pool):
        plan = super().plan(now, queue, pool)
        if now == 0:
            (self.first,) = [start.job for start in plan.starts]
        elif self.first is not None:
            plan.preemptions, self.first = [Preemption(self.first)], None
        return plan


def test_a_job_that_was_preempted_counts_from_its_submission():
    run = simulate(trace(job("8 GPUs for 30 s"), job("8 GPUs for 5 s", at=10)), cluster("1x8"), Robber())
    first = run.jobs[0]
    assert (first.submitted, first.first_start, first.attempt) == (0, 0, 2)
    assert first.ended == 30  # it goes on where it was
    assert summarize(run).jct.mean == ((30 - 0) + (35 - 10)) / 2
    assert summarize(run).preemptions == 1


# 4 Same seed, same bytes ----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from gpusched.cluster.backend import Node
from gpusched.jobs.traces.generate import Options, generate
from gpusched.jobs.traces.trace import Trace
from gpusched.policies.catalog import load
from gpusched.scheduler.report import summarize
from gpusched.scheduler.report.table import to_json
from gpusched.scheduler.simulate import trial

for policy in ("fifo", "binpack", "gang", "shortest+spread+skip"):
    of = Trace(list(generate(Options(jobs=400, seed=7, gpus=48, fractions=0.3))), "generated", "generated")
    done = trial(of, [Node(f"n{number}", 8) for number in range(6)], load(policy))
    print(to_json([summarize(done.run)]))
    for event in done.run.journal:
        print(event.time, event.kind, event.job, event.attempt, event.data if event.job != event.data else "")
    for choice in done.store.choices:
        print(choice)
"""


def test_the_same_seed_gives_the_same_bytes_in_two_processes_that_hash_differently():
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(gpusched.__file__).parent.parent)}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"placed") == 1600


@pytest.mark.parametrize("policy", CATALOG)
def test_a_second_run_in_the_same_process_is_the_same(policy):
    """No hidden state is left in a policy's module, in caches or in the trace."""
    of = busy()
    first, second = (simulate(of, cluster("2x8 1x4"), load(policy)) for _ in range(2))
    assert [tuple(event)[:4] for event in first.journal] == [tuple(event)[:4] for event in second.journal]
    assert [one.placement for one in first.jobs] == [one.placement for one in second.jobs]


def test_results_do_not_depend_on_how_fast_the_machine_decides(monkeypatch):
    """The clock of the machine may say what it likes."""
    of = busy(60)
    plain = simulate(of, cluster("2x8 1x4"), load("binpack"))
    ticks = iter(range(0, 10**9, 1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    slow = simulate(of, cluster("2x8 1x4"), load("binpack"))
    assert [tuple(event)[:4] for event in slow.journal] == [tuple(event)[:4] for event in plain.journal]
    assert slow.seconds != plain.seconds


# 5 Off by one ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [*CATALOG, "shortest+first_fit+strict"])
def test_no_second_is_added_anywhere(policy):
    run = simulate(trace(*[job("8 GPUs for 10 s")] * 5), cluster("1x8"), load(policy))
    assert [(one.first_start, one.ended) for one in run.jobs] == [(10 * n, 10 * n + 10) for n in range(5)]
    assert summarize(run).makespan == 50


def test_a_job_that_arrives_when_another_ends_starts_that_second():
    run = simulate(trace(job("8 GPUs for 10 s"), job("8 GPUs for 1 s", at=10)), cluster("1x8"), load("fifo"))
    assert run.jobs[1].first_start == 10


def test_one_pass_sees_all_that_happened_in_a_second():
    """At 10 both 4s end and an 8 and a 4 arrive: the 8, first in line, gets the node."""
    run = simulate(
        trace(
            job("4 GPUs for 10 s"), job("4 GPUs for 10 s"), job("8 GPUs for 5 s", at=10), job("4 GPUs for 5 s", at=10)
        ),
        cluster("1x8"),
        load("binpack"),
    )
    assert [one.first_start for one in run.jobs] == [0, 0, 10, 15]


# 6 Names that hide their rule -----------------------------------------------------------------------------------------


def test_fifo_and_sjf_say_whether_a_blocked_head_blocks():
    assert load("fifo").blocking.name == "strict"
    for rule in ("strict", "skip"):
        policy = load(f"shortest+best_fit+{rule}")
        assert (policy.name, policy.blocking.name) == (f"shortest+best_fit+{rule}", rule)


def test_shortest_means_the_shortest_run_and_not_the_fewest_gpus():
    run = simulate(
        trace(job("8 GPUs for 9 s"), job("1 GPU for 50 s", at=1), job("8 GPUs for 5 s", at=1)),
        cluster("1x8"),
        load("shortest+best_fit+strict"),
    )
    assert [one.first_start for one in run.jobs] == [0, 14, 9]


# 8 Placement detail ---------------------------------------------------------------------------------------------------


def test_a_remainder_may_share_its_node():
    """Twelve GPUs on nodes of eight: the four share a node with another job's three."""
    run = simulate(
        trace(job("3 GPUs in total for 9 s"), job("12 GPUs in total for 9 s"), job("1 GPU in total for 9 s")),
        cluster("2x8"),
        load("binpack"),
    )
    assert [one.first_start for one in run.jobs] == [0, 0, 0]


# 10 Shipped options that raise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["arrival", "priority", "shortest"])
@pytest.mark.parametrize("place", ["first_fit", "best_fit", "spread", "count"])
@pytest.mark.parametrize("rule", ["strict", "skip", "earmark"])
def test_every_composition_that_is_offered_runs(order, place, rule):
    run = simulate(busy(80), cluster("2x8 1x4"), load(f"{order}+{place}+{rule}"))
    assert summarize(run).finished == 80


# Utilisation is integrated at events ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", CATALOG)
def test_the_allocation_ratio_equals_a_count_of_every_second(policy):
    nodes = cluster("2x8 1x4")
    run = simulate(busy(120), nodes, load(policy))
    first = min(one.submitted for one in run.jobs)
    last = max(one.ended for one in run.jobs)
    size = {one.id: one.shape.total_gpus for one in run.jobs}
    since, attempts = {}, []  # an attempt ends with its job or goes back to the queue
    for event in run.journal:
        if event.kind is Kind.PLACED:
            since[event.job] = event.time
        elif event.job in since and event.kind not in {Kind.STARTED, Kind.PREEMPTED}:
            attempts.append((since.pop(event.job), event.time, size[event.job]))
    held = sum(
        gpus for second in range(int(first), int(last)) for start, end, gpus in attempts if start <= second < end
    )
    assert summarize(run).allocation_ratio == pytest.approx(held / (20 * (last - first)), abs=1e-12)


def test_a_cluster_of_one_kind_and_named_nodes_are_the_same_to_the_engine():
    by_number = simulate(busy(60), [Node(f"n{number}", 8) for number in range(3)], load("gang"))
    by_name = simulate(busy(60), [Node(name, 8) for name in ("zeta", "alpha", "mid")], load("gang"))
    assert [one.ended for one in by_number.jobs] == [one.ended for one in by_name.jobs]
