"""The simulator against published results, job by job and to the second.

Set GPUSCHED_REFERENCE to a folder with `summary.csv`, `traces/` and `expected/` as the README of the results describes
them; without it only the cases below run, which are checked by hand and by a simulator that counts every second.
"""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import cluster, job, trace
from gpusched.cluster.backend import Node
from gpusched.jobs.job import Shape
from gpusched.jobs.traces.trace import Trace, TraceJob
from gpusched.policies.catalog import load
from gpusched.scheduler.simulate import simulate

ORDERS = {"fifo": "arrival", "sjf": "shortest"}
POLICIES = {
    "fifo_strict": "arrival+{}+strict",
    "fifo_skip": "arrival+{}+skip",
    "sjf_strict": "shortest+{}+strict",
    "sjf_skip": "shortest+{}+skip",
    "srtf": "srtf+{}+skip+preempt",
    "srsf": "srsf+{}+skip+preempt",
    "smallest_gpus_first": "smallest+{}+skip+preempt",
    "dlas_gpu": "tiresias?wake=tiresias-artifact+{}+skip+preempt",
}
"""The names of the published results, and ours; {} is the placement."""


def played(of: Trace, nodes: list[Node], policy: str) -> dict[int, tuple[float | None, float | None, int]]:
    """(start, end, preemptions) of each job, by its place in the trace."""
    run = simulate(of, nodes, load(policy))
    assert not run.rejected
    return {one.id - 1: (one.first_start, one.ended, one.attempt - 1) for one in run.jobs}


def times(of: Trace, nodes: list[Node], policy: str) -> dict[int, tuple[float | None, float | None]]:
    """(start, end) of each job, by its place in the trace."""
    return {number: found[:2] for number, found in played(of, nodes, policy).items()}


# The published results ------------------------------------------------------------------------------------------------

FOLDER = Path(os.environ.get("GPUSCHED_REFERENCE") or ".")


def cases() -> list[dict[str, str]]:
    """All that say what each job did."""
    if not os.environ.get("GPUSCHED_REFERENCE"):
        return []
    with (FOLDER / "summary.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["per_job_file"]]


@pytest.mark.skipif(not os.environ.get("GPUSCHED_REFERENCE"), reason="GPUSCHED_REFERENCE names no folder of results")
def test_there_are_published_results():
    assert len(cases()) >= 71


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["per_job_file"].removesuffix(".csv.gz"))
def test_a_published_result_is_met_by_every_job_to_the_second(case):
    with (FOLDER / "traces" / f"{case['trace']}.csv").open() as file:
        rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    jobs = [
        TraceJob(number, f"row-{number}", row["submit_time"], row["duration"], Shape(0, row["num_gpus"]))
        for number, row in enumerate(rows)
    ]
    found = played(
        Trace(jobs, case["trace"], "published"),
        [Node(f"n{number}", int(case["gpus_per_node"])) for number in range(int(case["nodes"]))],
        POLICIES[case["policy"]].format(case["placement"]),
    )
    with gzip.open(FOLDER / "expected" / case["per_job_file"], "rt") as file:
        number_of = {row["job_id"]: number for number, row in enumerate(rows)}
        expected = {
            number_of[int(row["job_id"])]: (float(row["start"]), float(row["end"]), int(row.get("preemptions") or 0))
            for row in csv.DictReader(file)
        }
    assert found == expected


# By hand --------------------------------------------------------------------------------------------------------------

THREE = [job("6 GPUs for 10 s"), job("4 GPUs for 5 s", at=1), job("2 GPUs for 3 s", at=2)]
STAIRS = [
    job("8 GPUs for 10 s"),
    job("4 GPUs for 9 s", at=1),
    job("4 GPUs for 2 s", at=2),
    job("8 GPUs for 1 s", at=3),
]
WIDE = [
    job("8 GPUs in total for 10 s"),
    job("1 GPU in total for 4 s", at=1),
    job("8 GPUs in total for 3 s", at=2),
    job("4 GPUs in total for 1 s", at=3),
]
REMAINDER = [  # at 1 s n0 has 8 GPUs free, n1 6 and n2 7; the 10 takes n0 whole and 2 more
    job("8 GPUs in total for 1 s"),
    job("2 GPUs in total for 60 s"),
    job("6 GPUs in total for 1 s"),
    job("1 GPU in total for 60 s"),
    job("10 GPUs in total for 10 s", at=1),
    job("7 GPUs in total for 5 s", at=2),
    job("6 GPUs in total for 5 s", at=3),
]
FIRST_FOUR = [(0, 1), (0, 60), (0, 1), (0, 60)]
HOLES = [  # best fit keeps a hole of 5 where first fit leaves 4 and 4
    job("4 GPUs in total for 10 s"),
    job("5 GPUs in total for 10 s"),
    job("3 GPUs in total for 10 s"),
    job("4 GPUs in total for 10 s", at=1),
]

BY_HAND = [
    # The head of 4 waits for the 6 to end; strict keeps the 2 behind it, skip lets it pass.
    ("arrival+first_fit+strict", "1x8", THREE, [(0, 10), (10, 15), (10, 13)]),
    ("arrival+first_fit+skip", "1x8", THREE, [(0, 10), (10, 15), (2, 5)]),
    # At 10 the shortest goes first; strict blocks behind the 8 of 1 s, then the two of 4 fit together.
    ("shortest+first_fit+strict", "1x8", STAIRS, [(0, 10), (11, 20), (11, 13), (10, 11)]),
    ("arrival+first_fit+strict", "1x8", STAIRS, [(0, 10), (10, 19), (10, 12), (19, 20)]),
    ("arrival+first_fit+skip", "1x8", STAIRS, [(0, 10), (10, 19), (10, 12), (19, 20)]),
    # Nodes of 4: a gang of 8 takes two idle ones; with one GPU of the third in use the second gang waits for both.
    ("arrival+first_fit+strict", "3x4", WIDE, [(0, 10), (1, 5), (10, 13), (10, 11)]),
    ("arrival+first_fit+skip", "3x4", WIDE, [(0, 10), (1, 5), (10, 13), (5, 6)]),
    ("arrival+count+strict", "3x4", WIDE, [(0, 10), (1, 5), (10, 13), (10, 11)]),
    # The remainder goes to n1, the first other node with room: the 7 fits n2, and the 6 waits for it.
    ("arrival+first_fit+skip", "3x8", REMAINDER, [*FIRST_FOUR, (1, 11), (2, 7), (7, 12)]),
    # The remainder goes to n2, where most is free: the 6 fits n1, and the 7 waits for the 10.
    ("arrival+best_fit+skip", "3x8", REMAINDER, [*FIRST_FOUR, (1, 11), (11, 16), (3, 8)]),
    ("arrival+best_fit+strict", "3x8", REMAINDER, [*FIRST_FOUR, (1, 11), (11, 16), (11, 16)]),
    # Not even its remainder may share a node: the 10 waits for the two jobs of 60 s.
    ("arrival+best_fit_idle_gang+skip", "3x8", REMAINDER, [*FIRST_FOUR, (60, 70), (2, 7), (3, 8)]),
    # The 3 goes beside the 4 by first fit and beside the 5 by best fit: then 4 more fit beside the 4.
    ("arrival+first_fit+strict", "2x8", HOLES, [(0, 10), (0, 10), (0, 10), (10, 20)]),
    ("arrival+best_fit+strict", "2x8", HOLES, [(0, 10), (0, 10), (0, 10), (1, 11)]),
    # The same instant: completions release first, then arrivals join, then one pass.
    ("arrival+first_fit+strict", "1x8", [job("8 GPUs for 5 s"), job("8 GPUs for 5 s", at=5)], [(0, 5), (5, 10)]),
]


@pytest.mark.parametrize(("policy", "nodes", "asks", "expected"), BY_HAND)
def test_a_case_by_hand(policy, nodes, asks, expected):
    assert [times(trace(*asks), cluster(nodes), policy)[number] for number in range(len(asks))] == expected


# By counting every second ---------------------------------------------------------------------------------------------


def count_every_second(  # noqa: PLR0917 - the six things that a case is made of
    jobs: list[tuple[int, int, int]], nodes: int, size: int, order: str, placement: str, rule: str
) -> list[tuple[int, int]]:
    """The rules in the plainest words: (submitted, GPUs, duration) -> (start, end)."""
    free = [size] * nodes
    held: dict[int, dict[int, int]] = {}
    start: dict[int, int] = {}
    now = 0
    while len(start) < len(jobs) or held:
        for number in [number for number in held if start[number] + jobs[number][2] == now]:
            for node, gpus in held.pop(number).items():
                free[node] += gpus
        queue = [number for number in range(len(jobs)) if number not in start and jobs[number][0] <= now]
        queue.sort(key=lambda number: (jobs[number][2] if order == "sjf" else 0, jobs[number][0], number))
        for number in queue:
            given = give(jobs[number][1], free, size, placement)
            if given is None and rule == "strict":
                break
            if given is not None:
                start[number], held[number] = now, given
                for node, gpus in given.items():
                    free[node] -= gpus
        now += 1
    return [(start[number], start[number] + jobs[number][2]) for number in range(len(jobs))]


def give(gpus: int, free: list[int], size: int, placement: str) -> dict[int, int] | None:  # noqa: PLR0911 - rules
    nodes = range(len(free))
    if placement == "count":
        if sum(free) < gpus:
            return None
        given = {}
        for node in nodes:
            given[node] = min(gpus - sum(given.values()), free[node])
        return given
    if gpus <= size:
        room = [node for node in nodes if free[node] >= gpus]
        if not room:
            return None
        return {min(room, key=lambda node: (free[node] if placement == "best_fit" else 0, node)): gpus}
    whole = [node for node in nodes if free[node] == size][: gpus // size]
    if len(whole) < gpus // size:
        return None
    given = dict.fromkeys(whole, size)
    if rest := gpus % size:
        room = [node for node in nodes if node not in whole and free[node] >= rest]
        if not room:
            return None
        given[min(room, key=lambda node: (-free[node] if placement == "best_fit" else 0, node))] = rest
    return given


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([1, 1, 2, 3, 4, 5, 8, 10, 12]), st.integers(1, 9)),
        min_size=1,
        max_size=14,
    ),
    st.sampled_from([(2, 8), (4, 4), (3, 4)]),
    st.sampled_from(["fifo", "sjf"]),
    st.sampled_from(["count", "first_fit", "best_fit"]),
    st.sampled_from(["strict", "skip"]),
)
def test_the_simulator_equals_one_that_counts_every_second(drawn, size, order, placement, rule):
    drawn.sort(key=lambda one: one[0])
    first = drawn[0][0]
    jobs = [(at - first, gpus, lasts) for at, gpus, lasts in drawn]
    rows = [TraceJob(number, "", at, lasts, Shape(0, gpus)) for number, (at, gpus, lasts) in enumerate(jobs)]
    nodes = [Node(f"n{number}", size[1]) for number in range(size[0])]
    found = times(Trace(rows, "drawn", "drawn"), nodes, f"{ORDERS[order]}+{placement}+{rule}")
    expected = count_every_second(jobs, *size, order, placement, rule)
    assert [found[number] for number in range(len(jobs))] == expected


def count_every_second_with_preemption(
    jobs: list[tuple[int, int, int]], gpus: int, order: str
) -> list[tuple[int, int, int]]:
    """The rules in the plainest words: at each event all live jobs, sorted stably, are admitted greedily with skip."""
    left = [lasts for _, _, lasts in jobs]
    live: list[int] = []
    start: dict[int, int] = {}
    end: dict[int, int] = {}
    stopped = [0] * len(jobs)
    runs: list[int] = []
    key = {
        "srtf": lambda number: left[number],
        "srsf": lambda number: left[number] * jobs[number][1],
        "smallest": lambda number: jobs[number][1],
    }[order]
    now = 0
    while len(end) < len(jobs):
        done = [number for number in runs if not left[number]]
        came = [number for number in range(len(jobs)) if jobs[number][0] == now]
        for number in done:
            end[number] = now
            live.remove(number)
        live += came
        if done or came:
            live.sort(key=key)
            free, before, runs = gpus, runs, []
            for number in live:
                if jobs[number][1] <= free:
                    free -= jobs[number][1]
                    runs.append(number)
                    start.setdefault(number, now)
            for number in before:
                stopped[number] += number in live and number not in runs
        for number in runs:
            left[number] -= 1
        now += 1
    return [(start[number], end[number], stopped[number]) for number in range(len(jobs))]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.sampled_from([1, 1, 2, 3, 4, 5, 8]), st.integers(1, 12)),
        min_size=1,
        max_size=14,
    ),
    st.sampled_from(["srtf", "srsf", "smallest"]),
)
def test_the_simulator_equals_one_that_counts_every_second_and_stops_jobs(drawn, order):
    drawn.sort(key=lambda one: one[0])
    jobs = [(at - drawn[0][0], gpus, lasts) for at, gpus, lasts in drawn]
    rows = [TraceJob(number, "", at, lasts, Shape(0, gpus)) for number, (at, gpus, lasts) in enumerate(jobs)]
    found = played(Trace(rows, "drawn", "drawn"), [Node("n", 8)], f"{order}+count+skip+preempt")
    expected = count_every_second_with_preemption(jobs, 8, order)
    assert [found[number] for number in range(len(jobs))] == expected
