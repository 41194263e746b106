"""How fast is a replay, and what does the engine add to a bare loop?

    python tests/benchmarks/simulator.py --traces DIRECTORY [--only WORD] [--policies NAME,...]
    python tests/benchmarks/simulator.py --growth [--policies NAME,...]
    python tests/benchmarks/simulator.py --million

DIRECTORY holds the public traces named below, as their publishers lay them out. Each line is measured in this run: CPU
seconds of the engine alone, the best of several runs with the garbage collector off, jobs per CPU second, and for
strict FIFO and SJF the ratio to the bare loop of bare_loop.py on the same trace, measured under the same conditions;
its starts must be the same to the second. Ratios hold on a noisy machine, seconds do not.

--growth replays generated jobs and ten times as many at the same load, under each policy. --million replays a million
generated jobs on 2,000 nodes.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / ".src")]

from bare_loop import replay

from gpusched.cluster.backend import Node
from gpusched.jobs.traces.catalog import read_trace
from gpusched.jobs.traces.generate import Options, generate
from gpusched.jobs.traces.trace import Trace
from gpusched.policies.catalog import load
from gpusched.scheduler.report import summarize
from gpusched.scheduler.simulate import simulate

VENUS = "helios-venus-2020/venus_gpu_jobs_2020-03-18_2020-06-30.csv.gz"
TRACES = {
    "venus, light": (VENUS, 121),
    "venus, overloaded": (VENUS, 54),
    "philly": ("philly-2017/philly.csv.gz", 40),
    "itp cluster08": ("microsoft-itp-2021/cluster08.csv.gz", 12),
}
STRICT = {"fifo": False, "shortest+first_fit+strict": True}
POLICIES = (
    *STRICT,
    *("sjf", "binpack", "gang", "priority"),
    *("easy", "sjbf"),
    *("srtf", "srsf", "las-2d", "tiresias", "gittins"),
    *("drf", "fair", "cohort", "multifactor"),
)
SIZE = 8
ENOUGH = 10.0
"""CPU seconds after which a run is not repeated."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--million", action="store_true")
    options = parser.parse_args()
    gc.disable()
    if options.million:
        million()
    elif options.growth:
        growth(options.policies.split(","))
    elif options.traces:
        public_traces(options.traces, options.only, options.policies.split(","), options.runs)
    else:
        parser.error("give --traces, --growth or --million")
    print(f"peak memory {peak():.0f} MiB")


def peak() -> float:
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best(run: Callable[[], object], runs: int) -> float:
    """CPU seconds of the fastest of several runs, each from a swept heap."""
    fastest = inf
    for _ in range(runs):
        gc.collect()
        begun = time.process_time()
        run()
        fastest = min(fastest, time.process_time() - begun)
        if fastest > ENOUGH:
            break
    return fastest


def replayed(trace: Trace, cluster: list[Node], policy: str) -> None:
    """One run, thrown away with all its records."""
    simulate(trace, cluster, load(policy))


def generated(jobs: int, gpus: int, load: float) -> Trace:
    """So many jobs like Helios' that ask for that share of the cluster."""
    options = Options(jobs=jobs, seed=1, load=load, gpus=gpus, mix="helios")
    return Trace(list(generate(options)), "generated", "generated")


def million() -> None:
    """1,000,000 generated jobs on 2,000 nodes of 8 GPUs, best-effort FIFO with bin packing."""
    begun = time.process_time()
    trace = generated(1_000_000, 2000 * SIZE, 1.0)
    made = time.process_time() - begun
    begun = time.process_time()
    run = simulate(trace, [Node(f"n{number}", SIZE) for number in range(2000)], load("arrival+best_fit+skip"))
    engine = time.process_time() - begun
    begun = time.process_time()
    summary = summarize(run)
    report = time.process_time() - begun
    print(
        f"generate {made:.1f} s, engine {engine:.1f} s ({len(trace.jobs) / engine:,.0f} jobs/s), report {report:.1f} s"
    )
    print(f"finished {summary.finished:,}, allocation ratio {summary.allocation_ratio:.3f}")


def growth(policies: list[str]) -> None:
    """CPU seconds of 4,000 and of 40,000 jobs at the same load on 32 nodes."""
    few, many = (generated(jobs, 32 * SIZE, 0.8) for jobs in (4_000, 40_000))
    cluster = [Node(f"n{number}", SIZE) for number in range(32)]
    print(f"{'policy':28} {'4,000 jobs':>11} {'40,000 jobs':>12} {'ratio':>6} {'jobs/s':>9} {'peak MiB':>9}")
    for policy in policies:
        small = best(partial(replayed, few, cluster, policy), 3)
        large = best(partial(replayed, many, cluster, policy), 1)
        figures = f"{small:9.2f} s {large:10.2f} s {large / small:6.1f} {len(many.jobs) / large:9,.0f} {peak():9,.0f}"
        print(f"{policy:28} {figures}", flush=True)


def public_traces(traces: Path, only: str, policies: list[str], runs: int) -> None:
    """Each trace under each policy."""
    print(f"{'trace':18} {'policy':28} {'engine s':>9} {'jobs/s':>9} {'bare s':>7} {'ratio':>6} {'peak MiB':>9}")
    for name, (file, nodes) in TRACES.items():
        if only not in name:
            continue
        trace = read_trace(str(traces / file))
        cluster = [Node(f"n{number}", SIZE) for number in range(nodes)]
        rows = [(job.submitted, job.shape.gpus, job.duration) for job in trace.jobs if job.shape.gpus <= nodes * SIZE]
        for policy in policies:
            compared = ""
            if policy in STRICT:
                starts = replay(rows, nodes, SIZE, shortest=STRICT[policy])
                run = simulate(trace, cluster, load(policy))
                assert starts == [job.first_start for job in run.jobs], "the engine and the bare loop disagree"
                del run, starts
            engine = best(partial(replayed, trace, cluster, policy), runs)
            if policy in STRICT:
                bare = best(partial(replay, rows, nodes, SIZE, shortest=STRICT[policy]), runs)
                compared = f"{bare:7.2f} {engine / bare:6.1f}"
            print(
                f"{name:18} {policy:28} {engine:9.2f} {len(rows) / engine:9,.0f} {compared:14} {peak():9,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
