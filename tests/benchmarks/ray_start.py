"""How long gpusched needs from `backend.start()` to a gang's first output, beside the same gang started by hand on Ray.

    python tests/benchmarks/ray_start.py [repetitions]

A cluster of three raylets on this machine; each gang is 2 x 1 GPU on two nodes. By hand: a connected driver creates the
pinned placement group, one actor a bundle, and each actor starts the command as a child. Both print the time at which
the command ran; the slower rank counts. The two take turns, so that the machine's other load meets both.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / ".src"), str(ROOT / "tests" / "cluster")]

import conftest as cluster_fixtures

NODES = ("127.0.0.11", "127.0.0.12")
COMMAND = "date +%s.%N"


def by_hand(ray, node_ids):
    """Seconds from the first call to the command's own time stamp."""
    from ray.util.placement_group import placement_group, remove_placement_group  # noqa: PLC0415 - after the cluster is up
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # noqa: PLC0415 - as above

    class Starter:
        def run(self, command):
            return subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout

    began = time.time()
    selectors = [{"ray.io/node-id": node_id} for node_id in node_ids]
    group = placement_group([{"GPU": 1, "CPU": 1}] * 2, bundle_label_selector=selectors)
    assert group.wait(5)
    actor = ray.remote(num_gpus=1, num_cpus=1)(Starter)
    starters = [
        actor.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote() for index in range(2)
    ]
    stamps = [float(stamp) for stamp in ray.get([starter.run.remote(COMMAND) for starter in starters])]
    remove_placement_group(group)
    return max(stamps) - began


def by_gpusched(live):
    """The same from `backend.start()`."""
    job = live.job(COMMAND, *NODES)
    began = time.time()
    live.backend.start(job, NODES, began)
    live.end(job)
    return max(float(live.log(job, rank)) for rank in range(2)) - began


def main():
    """Print both, and what gpusched adds."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    os.environ.update(cluster_fixtures.SETTINGS, RAY_TMPDIR=str(folder))
    cluster = cluster_fixtures.RayCluster(folder)
    try:
        for address in NODES:
            cluster.add(address, gpus=2)
        live = cluster_fixtures.Live(cluster, folder, cluster_fixtures.eventually)
        import ray  # noqa: PLC0415 - after the cluster is up

        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        ids = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes()}
        node_ids = [ids[name] for name in NODES]
        hand, ours = [], []
        for number in range(repetitions + 1):
            first, second = by_hand(ray, node_ids), by_gpusched(live)
            if number:  # the first of each warms its workers' node up
                hand.append(first)
                ours.append(second)
            time.sleep(1.0)  # Ray judges by a view that is up to a second old
        ray.shutdown()
        live.close()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    rows = {"by hand": hand, "gpusched": ours, "added": [b - a for a, b in zip(hand, ours, strict=True)]}
    sys.stdout.write(f"{'seconds':10}{'median':>8}{'min':>8}{'max':>8}   ({repetitions} gangs each)\n")
    for name, values in rows.items():
        figures = "".join(f"{value:8.3f}" for value in (statistics.median(values), min(values), max(values)))
        sys.stdout.write(f"{name:10}{figures}\n")


if __name__ == "__main__":
    main()
