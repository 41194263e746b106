"""How much of a core the samples of a large cluster take: 10,000 GPUs every 5 s into SQLite, roll-up and all.

    python tests/benchmarks/samples.py [--gpus 10000] [--minutes 5]

Each GPU is held and has figures and one process, as an agent sends them. Budget: below half a core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from gpusched.cluster.backend import Node, NodeChange
from gpusched.scheduler.store.samples import Retention, SampleStore
from gpusched.scheduler.store.sql import SqlStore

INTERVAL = 5.0
BEGIN = 1_700_000_000 // 3600 * 3600 + 3600.0 - 120  # an hour ends while it runs


def samples(nodes: int, now: float, beat: int) -> list[dict]:
    return [
        {
            "time": now + node % 7 * 0.01,
            "node": f"node-{node:05d}",
            "gpus": [
                {
                    "index": gpu,
                    "uuid": f"GPU-{node:05d}-{gpu}",
                    "name": "H100",
                    "utilization": (node * 8 + gpu + beat) % 101 / 100,
                    "memory_used": (node + gpu + beat) % 80 << 30,
                    "memory_total": 80 << 30,
                    "power": 350.0 + gpu,
                    "temperature": 60,
                    "processes": [{"pid": 1000 + gpu, "memory": 1 << 30, "type": "compute", "job": node + 1}],
                }
                for gpu in range(8)
            ],
            "jobs": [{"job": node + 1, "attempt": 1, "cpu": 7.5, "memory": 64 << 30, "processes": 17}],
            "host": {"cpu": 12.0, "cpus": 96, "memory_used": 1 << 38, "memory_total": 1 << 40},
        }
        for node in range(nodes)
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--gpus", type=int, default=10_000)
    options.add_argument("--minutes", type=int, default=5)
    given = options.parse_args()
    nodes = given.gpus // 8
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "samples.db"
        store = SqlStore(str(path))
        known = [(number, NodeChange(BEGIN, Node(f"node-{number:05d}", 8, "H100"))) for number in range(nodes)]
        store.commit(nodes=known)
        kept = SampleStore(store, interval=INTERVAL, keep=Retention())
        holders = {(f"node-{node:05d}", gpu): (node + 1, 1) for node in range(nodes) for gpu in range(8)}
        spent_adding = spent_rolling = longest = 0.0
        beats = int(given.minutes * 60 / INTERVAL)
        for beat in range(beats):
            now = BEGIN + beat * INTERVAL
            batch = samples(nodes, now, beat)
            begin, wall = time.process_time(), time.perf_counter()
            kept.add(batch, holders)
            between = time.process_time()
            kept.roll(now)
            spent_adding += between - begin
            spent_rolling += time.process_time() - between
            longest = max(longest, time.perf_counter() - wall)
        store.close()
        size = path.stat().st_size
    seconds = beats * INTERVAL
    lines = (
        f"{nodes * 8:,} GPUs every {INTERVAL:g} s for {seconds / 60:g} min: {beats * nodes * 8:,} GPU samples",
        f"adding   {spent_adding / seconds:6.1%} of a core",
        f"rolling  {spent_rolling / seconds:6.1%} of a core",
        f"together {(spent_adding + spent_rolling) / seconds:6.1%} of a core (budget 50%)",
        f"longest call {longest:.2f} s; {size / (beats * nodes * 8):.0f} bytes on disk a sample",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
