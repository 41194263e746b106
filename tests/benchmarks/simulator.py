"""How fast is a replay, and what does the engine add to a bare loop?

    python tests/benchmarks/simulator.py --traces DIRECTORY [--million]

DIRECTORY holds the public traces named below, as their publishers lay them out. Each line is measured in this run: CPU
seconds of the engine alone (the report is told apart), jobs per CPU second, and for FIFO and SJF the ratio to the bare
loop of bare_loop.py on the same trace, whose starts must be the same to the second. Ratios hold on a noisy machine,
seconds do not. With --million it replays a million generated jobs on 2,000 nodes instead.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
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

TRACES = {
    "venus, light": ("helios-venus-2020/venus_gpu_jobs_2020-03-18_2020-06-30.csv.gz", 121),
    "venus, overloaded": ("helios-venus-2020/venus_gpu_jobs_2020-03-18_2020-06-30.csv.gz", 54),
    "philly": ("philly-2017/philly.csv.gz", 40),
}
STRICT = {"fifo": False, "shortest+first_fit+strict": True}
POLICIES = (*STRICT, "binpack", "gang")
SIZE = 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--million", action="store_true")
    options = parser.parse_args()
    if options.million:
        million()
    elif options.traces:
        public_traces(options.traces, options.only)
    else:
        parser.error("give --traces or --million")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def million() -> None:
    """1,000,000 generated jobs on 2,000 nodes of 8 GPUs, best-effort FIFO with bin packing."""
    gpus = 2000 * SIZE
    begun = time.process_time()
    options = Options(jobs=1_000_000, seed=1, load=1.0, gpus=gpus, mix="helios")
    trace = Trace(list(generate(options)), "generated", "generated")
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


def public_traces(traces: Path, only: str) -> None:
    """Each trace under each policy."""
    print(f"{'trace':18} {'policy':28} {'engine s':>9} {'jobs/s':>9} {'bare s':>7} {'ratio':>6} {'report s':>8}")
    for name, (file, nodes) in TRACES.items():
        if only not in name:
            continue
        trace = read_trace(str(traces / file))
        cluster = [Node(f"n{number}", SIZE) for number in range(nodes)]
        rows = [(job.submitted, job.shape.gpus, job.duration) for job in trace.jobs if job.shape.gpus <= nodes * SIZE]
        for policy in POLICIES:
            begun = time.process_time()
            run = simulate(trace, cluster, load(policy))
            engine = time.process_time() - begun
            line = f"{name:18} {policy:28} {engine:9.2f} {len(rows) / engine:9,.0f}"
            if policy in STRICT:
                begun = time.process_time()
                starts = replay(rows, nodes, SIZE, shortest=STRICT[policy])
                bare = time.process_time() - begun
                assert starts == [job.first_start for job in run.jobs], "the engine and the bare loop disagree"
                line += f" {bare:7.2f} {engine / bare:6.1f}"
            else:
                line += " " * 15
            begun = time.process_time()
            summarize(run)
            print(f"{line} {time.process_time() - begun:8.2f}", flush=True)


if __name__ == "__main__":
    main()
