"""What gpusched adds between submit and the user's first line, against the same gang started by hand on Ray.

    python tests/benchmarks/start_up.py [RUNS]

Starts a control plane with a local Ray of its own in a temporary directory. In turn, a gang of two workers is submitted
over HTTP, and the same gang is started by hand: a placement group, two actors, a subprocess in each, by a driver that
is connected already. The command prints the time; measured is from just before the submission to the later of the two
workers' first lines.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = str(Path(__file__).parents[2] / ".src")
sys.path[:0] = [SOURCE]

from gpusched.jobs.spec import spec_from_document
from gpusched.scheduler import daemon
from gpusched.scheduler.client import Client
from gpusched.scheduler.paths import Paths

SETTLE = 1.0
"""Seconds between gangs: just after a removal Ray judges by a stale view and takes a second more, whoever asks."""
COMMAND = "date +%s.%N"
SPEC = {"name": "probe", "num_nodes": 2, "resources": {"accelerators": 1, "cpus": 0.5}, "run": COMMAND}


def main() -> None:
    """Print both and the difference."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="gs") as folder:
        paths = Paths(Path(folder))
        plane = daemon.ensure_running(paths, say=lambda line: print(line, file=sys.stderr), ready=True)
        try:
            client = Client(plane.url, plane.token)
            links = client.status()["ray"]
            os.environ.update(
                RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=links["links"]["token"], RAY_ADDRESS=links["address"]
            )
            by_hand = ByHand()
            by_hand.start()
            ours, theirs = [], []
            for turn in range(runs + 1):
                one = queued(client)
                time.sleep(SETTLE)
                other = by_hand.start()
                time.sleep(SETTLE)
                if turn:  # the first of each warms up
                    ours.append(one)
                    theirs.append(other)
            by_hand.close()
        finally:
            daemon.stop(paths, force=True)
    ours.sort()
    theirs.sort()
    added = statistics.median(ours) - statistics.median(theirs)
    for name, times in (("gpusched", ours), ("by hand", theirs)):
        print(f"{name:9} median {statistics.median(times):.2f} s, {times[0]:.2f} to {times[-1]:.2f}")
    print(f"added     {added:.2f} s")


def queued(client: Client) -> float:
    """Seconds through gpusched."""
    begun = time.time()
    job = client.submit([spec_from_document(SPEC)])[0]["id"]
    lines: dict[int, str] = {}
    for part in client.logs(job, follow=True):
        if "text" in part:
            lines[part["rank"]] = lines.get(part["rank"], "") + part["text"]
    return max(float(text.split()[0]) for text in lines.values()) - begun


class ByHand:
    """A driver of its own process, as `ray.init` changes the process that calls it."""

    def __init__(self) -> None:
        code = f"{SCRIPT}\nmain({COMMAND!r})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self) -> float:
        """Seconds for one gang."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("took "):
            assert line, "the driver by hand ended"
        return float(line.split()[1])

    def close(self) -> None:
        """End it."""
        self._process.communicate()


SCRIPT = """
import subprocess, sys, time
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

class Worker:
    def run(self, command):
        return subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True).stdout

def main(command):
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    for _ in sys.stdin:
        begun = time.time()
        group = placement_group([{"GPU": 1, "CPU": 0.5}] * 2)
        ray.get(group.ready())
        workers = [
            ray.remote(Worker).options(
                num_gpus=1, num_cpus=0.5, scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank)
            ).remote()
            for rank in range(2)
        ]
        lines = ray.get([worker.run.remote(command) for worker in workers])
        took = max(float(line) for line in lines) - begun
        for worker in workers:
            ray.kill(worker)
        remove_placement_group(group)
        print("took", took, flush=True)
"""


if __name__ == "__main__":
    main()
