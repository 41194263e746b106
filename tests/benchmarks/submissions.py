"""How many submissions a second the control plane takes durably over HTTP: one job a request, and batches.

    python tests/benchmarks/submissions.py [--seconds 5] [--clients 2] [--connections 16] [--batch 500]

A control plane is started as a process of its own in a fresh directory (SQLite, no cluster); client processes send
requests over kept-alive connections and count answers 201, each of which stands for jobs on disk. Client and server
share the machine's cores. Every job has a name of its own. At the end the jobs in the database are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2] / ".src"))
os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / ".src")

from gpusched.jobs.spec import spec_from_document
from gpusched.scheduler import daemon
from gpusched.scheduler.paths import Paths


def specs(client: int, count: int) -> list[str]:
    """Resolved specs as the command line sends them, no two alike."""
    spec = json.loads(
        spec_from_document(
            {
                "name": "job",
                "run": "python train.py --epochs 3",
                "user": "ann",
                "kind": "train",
                "resources": {"accelerators": "H100:8", "cpus": 8, "memory": "64GB"},
                "env": {"LEARNING_RATE": "0.001"},
                "max_duration": "2h",
            }
        ).to_store()
    )
    return [json.dumps({**spec, "name": f"job-{client}-{n}"}) for n in range(count)]


async def load(url: str, token: str, client: int, batch: int, *, connections: int, seconds: float) -> list[float]:
    """Send requests for so long; the times they took."""
    texts = specs(client, 4096 if batch == 1 else max(4096, batch * 8))
    bodies = [
        json.dumps(
            {"jobs": [{"spec": text, "source": "run: python train.py\n"} for text in texts[at : at + batch]]}
        ).encode()
        for at in range(0, len(texts) - batch + 1, batch)
    ]
    times: list[float] = []
    connector = aiohttp.TCPConnector(limit=connections)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        end = time.perf_counter() + seconds

        async def worker(number: int) -> None:
            at = number
            while (begun := time.perf_counter()) < end:
                async with session.post(f"{url}/v1/jobs", data=bodies[at % len(bodies)]) as reply:
                    answer = await reply.json()
                    assert reply.status == 201, answer
                    assert len(answer["jobs"]) == batch
                times.append(time.perf_counter() - begun)
                at += connections

        await asyncio.gather(*(worker(number) for number in range(connections)))
    return times


def client_main(url: str, token: str, client: int, options: argparse.Namespace, *, batch: int, found: object) -> None:
    """A client process."""
    connections = options.connections if batch == 1 else 2
    times = asyncio.run(load(url, token, client, batch, connections=connections, seconds=options.seconds))
    found.put(times)  # type: ignore[attr-defined] - a queue


def measure(plane: daemon.Running, options: argparse.Namespace, batch: int) -> int:
    """One line of results; the jobs queued."""
    found: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    arguments = [(plane.url, plane.token, client, options) for client in range(options.clients)]
    clients = [
        multiprocessing.Process(target=client_main, args=each, kwargs={"batch": batch, "found": found})
        for each in arguments
    ]
    for client in clients:
        client.start()
    times = [one for _ in clients for one in found.get()]
    for client in clients:
        client.join()
    jobs = len(times) * batch
    times.sort()
    print(
        f"{batch:>6} a request: {jobs / options.seconds:>8,.0f} jobs/s, "
        f"{len(times) / options.seconds:>6,.0f} requests/s, "
        f"p50 {1000 * statistics.median(times):.1f} ms   p99 {1000 * times[int(len(times) * 0.99)]:.1f} ms"
    )
    return jobs


def main() -> None:
    """Measure single submissions, then batches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--batch", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder) / "state")
        plane = daemon.ensure_running(paths, start=daemon.Start(ray_address="none"))
        try:
            queued = measure(plane, options, 1) + measure(plane, options, options.batch)
            status = daemon.ask(plane, "GET", "/v1/status", timeout=60)
            there, worst = status["jobs"]["QUEUED"], status["engine"]["worst_ms"]
            print(f"in the database: {there:,} of {queued:,}; the longest turn of the loop took {worst} ms")
            assert there == queued
        finally:
            daemon.stop(paths, keep_ray=True)


if __name__ == "__main__":
    main()
