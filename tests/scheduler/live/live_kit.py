"""A control plane in this process: real SQLite, a real HTTP server on loopback, real processes for jobs."""

# ruff: noqa: S310 - the URLs are those of servers that the test started

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_backend import LocalBackend

from gpusched.cluster.backend import Node
from gpusched.jobs.spec import spec_from_document
from gpusched.policies.catalog import load
from gpusched.scheduler.controller import Controller
from gpusched.scheduler.server import Server
from gpusched.scheduler.service import Service
from gpusched.scheduler.settings import Limits
from gpusched.scheduler.snapshots import SnapshotStore
from gpusched.scheduler.store.sql import SqlStore

GIB = 1 << 30
NODES = (
    Node("n1", 4, "H100", cpu_milli=16_000, memory=64 * GIB, address="10.0.0.1"),
    Node("n2", 4, "H100", cpu_milli=16_000, memory=64 * GIB, address="10.0.0.2"),
)


def until(true: Callable[[], Any], within: float = 20.0) -> Any:
    """Wait for the event itself; fail if it does not come."""
    end = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return found


def spec_text(run: str = "true", **keys: Any) -> str:
    """A resolved spec as the API takes it; `gpus` and `nodes` are short for the usual keys."""
    document = {"run": run, "name": keys.pop("name", "job"), "resources": {"accelerators": keys.pop("gpus", 1)}}
    if "accelerators" in keys:
        document["resources"]["accelerators"] = keys.pop("accelerators")
    if "nodes" in keys:
        document["num_nodes"] = keys.pop("nodes")
    return spec_from_document({**document, **keys}).to_store()


class Reply:
    def __init__(self, status: int, body: bytes, headers: Any) -> None:
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Plane:
    """The composed control plane and a small HTTP client to it."""

    def __init__(
        self,
        home: Path,
        *,
        policy: Any = "binpack",
        nodes=NODES,
        database: str = "",
        host="127.0.0.1",
        cluster: Path | None = None,
        token: str = "",
        ready: bool = True,
        limits: Limits | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        cluster = cluster or home / "cluster"
        cluster.mkdir(exist_ok=True)
        self.store = SqlStore(database or str(home / "gpusched.db"), busy_timeout=0.5)
        self.backend = LocalBackend(cluster, nodes)
        self.controller = Controller(
            self.store,
            self.backend,
            load(policy) if isinstance(policy, str) else policy,
            owner=str(home),
            limits=limits,
        )
        self.backend.on_news, self.backend.now = self.controller.wake, self.controller.clock.now
        self.service = Service(self.controller, self.store, SnapshotStore(home / "snapshots"), user="ann")
        self.stopped = threading.Event()
        self.server = Server(self.service, self.backend, host=host, token=token, shutdown=self.stopped.set)
        self.controller.lease.url = self.server.url
        self.controller.start()
        self.server.start()
        if nodes and ready:
            until(lambda: self.get("/v1/status").json["ready"])

    def close(self, *, jobs_too: bool = True) -> None:
        self.server.stop()
        self.controller.stop()
        self.backend.close()
        if jobs_too:
            self.backend.end_all()
        self.store.close()

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, headers=None, timeout=30
    ) -> Reply:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data, method=method, headers=headers or {})
        token = self.server.token if token is None else token
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return Reply(reply.status, reply.read(), reply.headers)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), error.headers)

    def get(self, path: str, **more: Any) -> Reply:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return self.ask("POST", path, {} if body is None else body, **more)

    def submit(self, run: str = "true", *, flags: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
        reply = self.post("/v1/jobs", {"jobs": [{"spec": spec_text(run, **keys), "source": run}], **(flags or {})})
        assert reply.status == 201, reply.body
        return reply.json["jobs"][0]

    def job(self, ref: Any) -> dict[str, Any]:
        return self.get(f"/v1/jobs/{ref}").json

    def wait(self, ref: Any, *, until_state: str = "done") -> dict[str, Any]:
        reply = self.get(f"/v1/jobs/{ref}/wait?for={until_state}&timeout=30", timeout=40).json
        assert reply["met"], reply
        return reply["job"]

    def lines(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.get(path).body.splitlines()]


@pytest.fixture
def plane_in(tmp_path) -> Iterator[Callable[..., Plane]]:
    """Makes control planes; all are closed, and their jobs ended, after the test."""
    made: list[Plane] = []

    def make(home: str = "home", **options: Any) -> Plane:
        made.append(Plane(tmp_path / home, **options))
        return made[-1]

    yield make
    for plane in made:
        plane.close()


@pytest.fixture
def plane(plane_in) -> Plane:
    return plane_in()
