"""What faults.py breaks: raylets, a PostgreSQL, two control planes, and jobs that watch themselves."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "end_to_end"), str(HERE.parents[1] / ".src")]

from site_kit import Site

from postgres_server import PostgresServer
from ray_cluster import SETTINGS, RayCluster, free_port

HEAD, SECOND, APART = "10.77.0.10", "10.77.0.11", "10.77.0.12"
PINNED = {"single-0": SECOND, "single-1": APART}
"""So that each machine that fails has something to lose."""
BRIDGE, LINK, SPACE = "gsbr0", "gslink0", "gsapart"
WORK = """
import os, pathlib, sys, time
import gpusched_job as job
steps, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
me = f"{os.environ['GPUSCHED_JOB_ID']}-{os.environ['RANK']}"
state, mine = folder / f"state-{me}", folder / f"lives-{me}-{job.attempt()}"
step = int(state.read_text().split()[1]) if state.exists() else 0
with mine.open("a") as lives:
    while step < steps:
        step += 1
        draft = folder / f"draft-{me}-{job.attempt()}"
        draft.write_text(f"{job.attempt()} {step}")
        job.commit(draft, state)
        lives.write(f"{time.monotonic()}\\n")
        lives.flush()
        time.sleep(0.1)
"""
"""A rank: counts to its steps, goes on from the step before when it is started again, and keeps a line of its life."""
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) {
  long by = 0; const char *name = getenv("GPUSCHED_TEST_CLOCK");
  FILE *file = name ? fopen(name, "r") : 0;
  if (file) { if (fscanf(file, "%ld", &by) != 1) by = 0; fclose(file); }
  return by;
}
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(id, t);
  if (!done && id == CLOCK_REALTIME) t->tv_sec += ahead();
  return done;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now; (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""
"""A wall clock that is off by as many seconds as a file says, for the processes that load it."""


STEPS = 120
"""Tenths of a second that the gang and the singles work."""


def until(true: Callable[[], Any], within: float = 90.0, what: str = "it") -> Any:
    """Wait for the thing itself."""
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired, OSError, LookupError, ValueError):
            if found := true():
                return found
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {within:.0f} s")
        time.sleep(0.1)


def ip(*words: str, check: bool = True) -> None:
    """The command of that name."""
    subprocess.run(["ip", *words], check=check, capture_output=True)


class Machines:
    """Three raylets with two logical GPUs each; the third in a network namespace of its own, behind a link to cut."""

    def __init__(self, *, storage: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gsf", dir="/tmp"))
        os.environ.update(SETTINGS, RAY_TMPDIR=str(self.folder))
        if storage:
            os.environ.update(RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=str(self.folder / "gcs"))
        self.port = free_port()
        self._net()
        self.start()

    def start(self) -> None:
        """All of them."""
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - slow

        self.cluster = RayCluster.__new__(RayCluster)
        self.cluster._cluster, self.cluster._nodes = Cluster(shutdown_at_exit=False), {}
        self.cluster.add(HEAD, gpus=2, gcs_server_port=self.port, labels={"gpusched.io/name": HEAD})
        self.address = f"{HEAD}:{self.port}"
        self.add(SECOND)
        self.add_apart()

    def _net(self) -> None:
        self._unnet()
        ip("link", "add", BRIDGE, "type", "bridge")
        for address in (HEAD, SECOND):
            ip("addr", "add", f"{address}/24", "dev", BRIDGE)
        ip("netns", "add", SPACE)
        ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", SPACE)
        ip("link", "set", LINK, "master", BRIDGE)
        for name in (BRIDGE, LINK):
            ip("link", "set", name, "up")
        ip("-n", SPACE, "addr", "add", f"{APART}/24", "dev", "eth0")
        for name in ("eth0", "lo"):
            ip("-n", SPACE, "link", "set", name, "up")

    def _unnet(self) -> None:
        ip("netns", "del", SPACE, check=False)
        ip("link", "del", LINK, check=False)
        ip("link", "del", BRIDGE, check=False)

    def add(self, address: str) -> None:
        """A raylet here."""
        self.cluster.add(address, gpus=2, labels={"gpusched.io/name": address})

    def add_apart(self) -> None:
        """The raylet behind the link."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={self.address}", "--block"]
        command += [f"--node-ip-address={APART}", "--num-gpus=2", "--num-cpus=4", "--object-store-memory=80000000"]
        command += [f"--labels=gpusched.io/name={APART}", "--disable-usage-stats", "--dashboard-agent-listen-port=0"]
        with (self.folder / "apart.log").open("ab") as log:
            self.apart = subprocess.Popen(["ip", "netns", "exec", SPACE, *command], stdout=log, stderr=log)

    def raylet(self, address: str = SECOND) -> int:
        """Its pid."""
        return int(self.cluster._nodes[address].all_processes["raylet"][0].process.pid)

    def gcs(self) -> int:
        """The pid of the head's GCS."""
        return int(self.cluster._nodes[HEAD].all_processes["gcs_server"][0].process.pid)

    def restart_gcs(self) -> None:
        """On the storage that it had."""
        node = self.cluster._nodes[HEAD]
        node.kill_gcs_server(check_alive=False)
        node.start_gcs_server()

    def stop_apart(self) -> None:
        """End the third raylet and all below it."""
        import psutil  # noqa: PLC0415 - here alone

        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.apart.pid).children(recursive=True)
            self.apart.terminate()
            for process in psutil.wait_procs(below, timeout=5)[1]:
                process.kill()
        self.apart.wait(20)

    def stop(self) -> None:
        """Everything."""
        self.stop_apart()
        self.cluster.stop()

    def close(self) -> None:
        """Leave nothing."""
        self.stop()
        self._unnet()
        shutil.rmtree(self.folder, ignore_errors=True)


class Bed:
    """Machines, PostgreSQL, two control planes, and what a trial needs of them."""

    def __init__(self, *, storage: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gsb", dir="/tmp"))
        (self.folder / "work.py").write_text(WORK)
        self.clock = self.folder / "clock.so"
        source = self.folder / "clock.c"
        source.write_text(CLOCK)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(self.clock), str(source), "-ldl"], check=True)
        self.offset = self.folder / "offset"
        self.offset.write_text("0")
        self.folder.chmod(0o755)
        os.environ.update(LD_PRELOAD=str(self.clock), GPUSCHED_TEST_CLOCK=str(self.offset))
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self._begin(storage=storage)
        except BaseException:
            self.close()
            raise

    def _begin(self, *, storage: bool) -> None:
        self.postgres = PostgresServer()
        self._ends.callback(self.postgres.stop)
        del os.environ["LD_PRELOAD"], os.environ["GPUSCHED_TEST_CLOCK"]
        self.machines = Machines(storage=storage)
        self._ends.callback(self.machines.close)
        more = {"GPUSCHED_TOKEN": "shared", "GPUSCHED_DATABASE_URL": self.postgres.migrated_database()}
        self.database = more["GPUSCHED_DATABASE_URL"]
        self.sites = {name: self.site(name, more) for name in ("a", "b")}
        self.all_urls()

    def site(self, name: str, more: dict[str, str]) -> Site:
        """A control plane of its own home, started."""
        folder = self.folder / name
        folder.mkdir()
        site = Site(folder, more)
        self._ends.callback(site.down)
        site.gpusched("up", "--ray-address", self.machines.address, within=120)
        return site

    def all_urls(self) -> None:
        """Clients know both."""
        urls = ",".join(site.plane()["url"] for site in self.sites.values())
        self.client = Site(self.folder / "a", {**self.sites["a"].environment, "GPUSCHED_ADDRESS": urls})
        self.client.environment["GPUSCHED_ADDRESS"] = urls

    def status(self, name: str) -> dict[str, Any]:
        """What one says of itself."""
        from gpusched.scheduler.client import Client  # noqa: PLC0415 - the path above

        found: dict[str, Any] = Client(self.sites[name].plane()["url"], "shared", timeout=3).status()
        return found

    def leader(self) -> str:
        """Name of the one that leads; empty = none does."""
        from gpusched.jobs.errors import GpuschedError  # noqa: PLC0415 - the path above

        for name in self.sites:
            with contextlib.suppress(GpuschedError):
                if self.status(name)["leader"]:
                    return name
        return ""

    def restore(self) -> None:
        """Both control planes and all nodes, before the next trial."""
        for site in self.sites.values():
            site.gpusched("up", "--ray-address", self.machines.address, within=120)
        self.all_urls()
        until(lambda: self.up() == {HEAD, SECOND, APART} and self.quiet(), what="all nodes")

    def nodes(self) -> list[dict[str, Any]]:
        """As the control plane sees them."""
        found: list[dict[str, Any]] = json.loads(self.sites[self.leader()].gpusched("nodes", "-o", "json", within=30))[
            "nodes"
        ]
        return found

    def up(self) -> set[str]:
        """Nodes that take work."""
        return {node["name"] for node in self.nodes() if node["state"] == "up"}

    def quiet(self) -> bool:
        """Whether all GPUs are free."""
        return sum(node["free"] or 0 for node in self.nodes() if node["state"] == "up") == 6

    # ---- jobs

    def submit(self, site: Site | None = None, *, seconds: float = STEPS / 10) -> list[int]:
        """A gang of two, two singles, and three jobs that wait for room."""
        return [
            self._submit(site, "gang", 2, 1, seconds),
            *(self._submit(site, f"single-{number}", 1, 1, seconds) for number in range(2)),
            *(self._submit(site, f"waits-{number}", 1, 2, 2) for number in range(3)),
        ]

    def _submit(self, site: Site | None, name: str, nodes: int, gpus: int, seconds: float) -> int:
        folder = self.folder / "work"
        folder.mkdir(exist_ok=True)
        file = self.folder / f"{name}.yaml"
        document = {
            "name": name,
            "num_nodes": nodes,
            "max_duration": "20m",
            "resources": {"accelerators": gpus, "cpus": 0.1},
            "retry": {"limit": 5, "on": ["lost", "failure"]},
            "checkpoint": {"dir": str(folder), "grace": "3s"},
            "run": f"exec {sys.executable} {self.folder / 'work.py'} {int(seconds * 10)} {folder}",
        }
        if name in PINNED:
            document["labels"] = {"gpusched.io/name": PINNED[name]}
        if nodes > 1:
            document["placement"] = {"nodes": "distinct"}
        file.write_text(json.dumps(document))
        return int((site or self.client).gpusched("submit", "-q", str(file)).strip())

    def job(self, number: int, site: Site | None = None) -> dict[str, Any]:
        """As `describe` has it."""
        found: dict[str, Any] = (site or self.client).job(str(number))
        return found

    def ranks(self, number: int, site: Site | None = None) -> list[dict[str, Any]]:
        """Of the last attempt."""
        found: list[dict[str, Any]] = self.job(number, site)["attempts"][-1]["ranks"]
        return found

    def runner(self, number: int) -> int:
        """A process that holds the write end of one of the job's lifelines, and is no supervisor."""
        attempt = self.job(number)["attempt"]
        for entry in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if entry.readlink().match(f"{number}-{attempt}/rank-*/lifeline"):
                    pid = int(entry.parts[2])
                    if b"supervisor.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
        raise TimeoutError(f"job {number} has no Runner")

    # ---- what must hold

    def check(self, jobs: list[int], site: Site | None = None) -> list[str]:
        """What was lost, in words; empty = nothing. And how long two attempts of a rank lived at once."""
        found = []
        folder = self.folder / "work"
        for number in jobs:
            job = self.job(number, site)
            if job["state"] != "SUCCEEDED":
                found.append(f"job {number} is {job['state']}: {job['message']}")
            ends = [kind for kind in self.journal(number, site) if kind in FINAL]
            if len(ends) != 1:
                found.append(f"job {number} ended {len(ends)} times: {ends}")
            for state in folder.glob(f"state-{number}-*"):
                steps = int(state.read_text().split()[1])
                if steps != (20 if job["name"].startswith("waits") else STEPS):
                    found.append(f"job {number} counted to {steps}")
            if left := self.marked(number):
                found.append(f"job {number} left processes {left}")
        return found

    def journal(self, number: int, site: Site | None) -> list[str]:
        """The kinds of a job's events."""
        from gpusched.scheduler.store.sql import SqlStore  # noqa: PLC0415 - the path above

        store = SqlStore(self.database if site is None else str(site.home / "gpusched.db"))
        try:
            return [event.kind.value for _, event in store.events(number)]
        finally:
            store.close()

    def overlap(self, jobs: list[int]) -> float:
        """Seconds for which two attempts of a rank lived at once; the fence kept the older from writing."""
        most = 0.0
        for number in jobs:
            lives: dict[str, list[tuple[int, float, float]]] = {}
            for file in (self.folder / "work").glob(f"lives-{number}-*"):
                _, _, rank, attempt = file.name.split("-")
                lines = file.read_text().split()
                if lines:
                    lives.setdefault(rank, []).append((int(attempt), float(lines[0]), float(lines[-1])))
            for spans in lives.values():
                spans.sort()
                for (_, _, before), (_, after, _) in itertools.pairwise(spans):
                    most = max(most, before - after)
        return most

    def marked(self, number: int) -> list[int]:
        """Processes of a job that live still."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "environ").read_bytes().split(b"\0")
                    work = (entry / "cmdline").read_bytes()
                    if f"GPUSCHED_JOB_ID={number}".encode() in words and str(self.folder).encode() in work:
                        found.append(int(entry.name))
        return found

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Watch the files that attempts write together: once a newer one has written, no older one does."""
        wrong: list[str] = []
        newest: dict[str, int] = {}
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.03):
                for file in (self.folder / "work").glob("state-*"):
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        attempt = int(file.read_text().split()[0])
                        if attempt < newest.get(file.name, 0):
                            wrong.append(f"{file.name}: attempt {attempt} wrote after {newest[file.name]}")
                        newest[file.name] = max(attempt, newest.get(file.name, 0))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield wrong
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        """Leave nothing."""
        self._ends.close()


def tell(pid: int, number: int) -> None:
    """Send a signal."""
    os.kill(pid, number)


FINAL = {"succeeded", "failed", "lost", "stopped", "timed_out"}
STOP, GO, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL
