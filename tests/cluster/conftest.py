"""A real Ray cluster of three nodes on this machine, and a `RayBackend` on it."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def eventually(check, within=30.0):
    deadline = time.monotonic() + within
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.02)
    return value


class Live:
    """A backend on the cluster, and what it reported, by job."""

    ids = itertools.count(1)

    def __init__(self, cluster, folder, wait_until, **options):
        from gpusched.cluster.ray.backend import RayBackend  # noqa: PLC0415 - as above

        self.cluster = cluster
        self.folder = folder
        self.wait_until = wait_until
        self.events = {}
        self.changes = []
        self.nodes = {}
        self.archives = {}
        self.make = lambda: RayBackend(
            cluster.address,
            folder / "state",
            snapshot=lambda job: self.archives.get(job.id),
            scratch=str(folder / "scratch"),
            sample_every=0.5,
            **options,
        )
        self.backend = self.make()
        self.wait_until(lambda: self.poll() and set(cluster.names) <= set(self.nodes))

    def poll(self):
        news = self.backend.poll(time.time())
        self.changes += news.nodes
        for change in news.nodes:
            self.nodes[change.node.name] = change.node
            if change.gone:
                del self.nodes[change.node.name]
        for event in news.events:
            self.events.setdefault((event.job, event.attempt), []).append(event)
        return True

    def job(self, run, *nodes, gpus=1, archive=None, **more):
        """A job of one piece a node in `nodes`, with an id that no other has."""
        from gpusched.jobs.job import Job, Piece  # noqa: PLC0415 - as above
        from gpusched.jobs.spec import spec_from_document  # noqa: PLC0415 - as above

        document = {
            "name": "test",
            "run": run,
            "num_nodes": len(nodes),
            "resources": {"accelerators": gpus, "cpus": 1},
            "checkpoint": {"grace": "2s"},
            **more,
        }
        spec = spec_from_document(document)
        job = Job(next(self.ids), spec.shape(), time.time(), spec=spec, name=spec.name)
        job.attempt = 1
        share = (0, int(gpus * 1000), 0) if 0 < gpus < 1 else (gpus,)
        job.placement = tuple(Piece(number, *share) for number in range(len(nodes)))
        if archive is not None:
            self.archives[job.id] = archive
        return job

    def start(self, run, *nodes, **more):
        job = self.job(run, *nodes, **more)
        self.backend.start(job, nodes, time.time())
        return job

    def seen(self, job, kind, within=30.0):
        """The event of this kind about the job's attempt, once it came."""

        def found():
            self.poll()
            return next((e for e in self.events.get((job.id, job.attempt), []) if e.kind == kind), None)

        return self.wait_until(found, within)

    def kinds(self, job):
        self.poll()
        return [str(event.kind) for event in self.events.get((job.id, job.attempt), [])]

    def end(self, job, within=60.0):
        """FINISHED, VANISHED or REFUSED of the job."""

        def found():
            self.poll()
            ends = ("finished", "vanished", "refused")
            return next((e for e in self.events.get((job.id, job.attempt), []) if e.kind in ends), None)

        return self.wait_until(found, within)

    def log(self, job, rank=0, node=""):
        return self.backend.read_log(job.id, job.attempt, rank, 0, node=node).result(30)[0].decode()

    def prints(self, job, text, rank=0):
        self.seen(job, "started")
        self.wait_until(lambda: text in self.log(job, rank))

    def processes(self, job):
        """Every process on this machine that carries the job's mark in its environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    tags = [v for v in (entry / "environ").read_bytes().split(b"\0") if v.startswith(b"GPUSCHED_TAG=")]
                    if tags and tags[0].split(b":")[1:3] == [str(job.id).encode(), str(job.attempt).encode()]:
                        found.append(int(entry.name))
        return found

    def groups(self):
        """Names of the placement groups that Ray has, by asking Ray."""
        code = (
            "import ray, json; ray.init(namespace='gpusched', logging_level='ERROR', log_to_driver=False);"
            "from ray.util.placement_group import placement_group_table as t;"
            "print(json.dumps([g['name'] for g in t().values() if g['state'] != 'REMOVED']));"
            "print(json.dumps(ray.util.list_named_actors()))"
        )
        env = {**os.environ, "RAY_ADDRESS": self.cluster.address}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        groups, actors = map(json.loads, out.strip().splitlines()[-2:])
        return groups, [name for name in actors if not name.startswith("gs:agent:")]

    def name(self, job):
        """Of the job's placement group: with the name of this backend's jobs, which others' do not have."""
        return f"gs:{(self.folder / 'state' / 'identity').read_text()}:{job.id}:{job.attempt}"

    def gateway_pid(self):
        return self.wait_until(lambda: self.backend._greeted and self.backend._gateway).pid

    def close(self):
        """Stop all that the test left running, so that the next one finds an empty cluster."""
        self.backend.adopt([], time.time())
        self.wait_until(lambda: self.groups() == ([], []), within=20)
        self.backend.close()


@pytest.fixture
def live(ray_cluster, tmp_path, wait_until):
    """A backend of its own for one test."""
    one = Live(ray_cluster, tmp_path, wait_until)
    yield one
    one.close()


@pytest.fixture(scope="module")
def shared_live(ray_cluster, tmp_path_factory):
    """One backend for all tests of a module that do not break it."""
    one = Live(ray_cluster, tmp_path_factory.mktemp("live"), eventually)
    yield one
    one.close()


@pytest.fixture(scope="module")
def make_live(ray_cluster, tmp_path_factory):
    """Make backends with options of the test's own."""
    made = []

    def make(**options):
        made.append(Live(ray_cluster, tmp_path_factory.mktemp("live"), eventually, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def wait_until():
    """Wait for a check to hold, and return what it returned."""
    return eventually
