"""Our side of the pipe to Ray: a `Backend` whose every call returns at once. Imports no Ray.

The gateway is a child process that may hang or die at any moment. One thread here keeps it: starts it, reads what it
reports, pings it, kills it when it does not answer, starts the next one after a pause that grows, and has that one take
up what should run. Orders given meanwhile wait in a queue.
"""

from __future__ import annotations

import base64
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ...jobs.causes import log_patterns
from ...jobs.errors import NotFoundError, UnreachableError
from ...jobs.events import NOTES, Event, Kind
from ...jobs.job import Job, State
from ..backend import News, Node, NodeChange
from ..health import HealthLimits
from . import local
from .pipe import Gateway

CONNECT_WITHIN = 60.0
"""Seconds from the start of a gateway to its greeting; `ray.init` to a dead address hangs for minutes."""
PING_EVERY = 2.0
PONG_WITHIN = 20.0
RAY_LATE = 10.0
"""Seconds without an answer of Ray's after which users are told."""
RAY_SILENT = 90.0
"""Seconds that Ray may leave the gateway without an answer before a fresh connection is tried."""
PAUSES = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the next gateway, after so many failures in a row."""
LOG_WITHIN = 20.0

Key = tuple[int, int]


def start_request(job: Job, nodes: tuple[str, ...], snapshot: Path | None) -> dict[str, Any]:
    """What the gateway must know to start an attempt. It carries the secrets' values: over the pipe only.

    Keys: job, attempt, nodes (names, one a piece), bundles (Ray resources, one a piece), setup, run, grace (seconds),
    signal (its name), max_duration (seconds or None), patterns (the job's own, to be looked for in its log), snapshot
    (path or None), env (all but what differs by rank).
    """
    spec = job.spec
    assert spec is not None, "a live job has a spec"
    own = {
        "GPUSCHED_JOB_ID": str(job.id),
        "GPUSCHED_JOB_NAME": job.name,
        "GPUSCHED_ATTEMPT": str(job.attempt),
        "GPUSCHED_QUEUE": job.queue,
        "GPUSCHED_GRACE_SECONDS": f"{spec.checkpoint.patience:g}",
    }
    if job.array_id:
        own |= {"GPUSCHED_ARRAY_ID": str(job.array_id), "GPUSCHED_ARRAY_INDEX": str(job.array_index)}
    if spec.checkpoint.dir:
        own["GPUSCHED_CHECKPOINT_DIR"] = spec.checkpoint.dir
    return {
        "op": "start",
        "job": job.id,
        "attempt": job.attempt,
        "nodes": list(nodes),
        "bundles": [bundle(job, gpus + milli / 1000) for _node, gpus, milli, _slot in job.placement],
        "setup": spec.setup,
        "run": spec.run,
        "grace": spec.checkpoint.patience,
        "signal": spec.checkpoint.signal,
        "max_duration": spec.max_duration,
        "patterns": list(log_patterns(spec.retry)),
        "snapshot": str(snapshot) if snapshot else None,
        "env": {**spec.env, **spec.secret_values(), **own},
    }


def bundle(job: Job, gpus: float) -> dict[str, float]:
    """A piece as a bundle of Ray resources; Ray wants at least one that is not zero."""
    shape = job.shape
    need = {"GPU": gpus, "CPU": shape.cpu_milli / 1000, "memory": shape.memory}
    return {key: amount for key, amount in need.items() if amount} or {"CPU": 0.001}


def _utc(steady: float) -> float:
    """UTC seconds of a moment that the steady clock of this machine showed, as far as the wall clock is right now."""
    return steady + time.time() - time.monotonic()


class RayBackend:
    """Runs attempts on a Ray cluster through a gateway process, which it starts, watches and starts again.

    Args:
        address: the cluster's address, such as `10.0.0.1:6379`; None = not connected yet, see `connect`.
        state: directory of this control plane's own; the gateway's log lives there.
        owner: name of the database's jobs on the cluster, whichever control plane leads; empty = one of `state`'s own.
        term: under which term of the lease orders are given; asked when attempts are taken up. 0 = there is no lease.
        at: UTC seconds of a moment of this machine's steady clock.
        snapshot: path of the local tar.gz of a job's workdir, None when it has none. Called in `start`; must not block.
        on_news: called from another thread whenever `poll` would return something; wakes the clock.
        scratch: directory on every node for workdirs and logs; empty = `gpusched-<uid>` in the node's temporary files.
        sample_every: seconds between two samples of a node.
        health: from when on a node, or one of its GPUs, is not well; None = the defaults.
    """

    def __init__(
        self,
        address: str | None,
        state: Path,
        *,
        snapshot: Callable[[Job], Path | None] = lambda _job: None,
        on_news: Callable[[], None] = lambda: None,
        scratch: str = "",
        sample_every: float = 5.0,
        health: HealthLimits | None = None,
        owner: str = "",
        term: Callable[[], int] = lambda: 0,
        at: Callable[[float], float] | None = None,
    ) -> None:
        self._address = address
        self._state = state
        self._snapshot = snapshot
        self._on_news = on_news
        self._term_now = term
        self._at = at or _utc
        self._term = 0
        self._connect_order = {
            "op": "connect",
            "owner": owner or identity(state),
            "scratch": scratch,
            "sample_every": sample_every,
            "health": (health or HealthLimits()).plain(),
        }
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = False
        self._why = "" if address else "no Ray cluster is configured"
        # All below is guarded by the lock.
        self._gateway: Gateway | None = None
        self._greeted = False
        self._nodes: dict[str, Node] = {}
        self._node_news: list[NodeChange] = []
        self._events: list[Event] = []
        self._samples: list[dict[str, Any]] = []
        self._links: dict[str, str] = {}
        self._session = ""  # Ray's own name of the cluster since its head began
        self._running: dict[Key, dict[str, Any]] = {}
        """What should run: for each attempt what `adopt` tells the next gateway."""
        self._outbox: list[dict[str, Any]] = []
        """Orders for a gateway that is not there yet."""
        self._adopted = False
        self._token_file = ""
        self._logs: dict[int, tuple[Future[tuple[bytes, int]], float]] = {}
        self._log_ids = itertools.count(1)
        self._thread = threading.Thread(target=self._keep, name="ray-gateway", daemon=True)
        self._thread.start()

    # ---- Backend

    def connect(self, address: str) -> None:
        """Use the cluster at this address from now on. Returns at once; `alive` says when it answers."""
        with self._lock:
            if address == self._address:
                return
            self._address = address
            self._why = f"connecting to Ray at {address}"
            gateway = self._gateway
        if gateway is not None:
            gateway.kill()
        self._changed.set()

    def poll(self, now: float) -> News:  # noqa: ARG002 - reports carry their own time
        """What happened since the last poll."""
        with self._lock:
            news = News(tuple(self._node_news), self._events)
            self._node_news, self._events = [], []
        return news

    def next_time(self) -> float | None:
        """Not known: the backend wakes the clock by `on_news`."""
        return None

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:  # noqa: ARG002 - the gateway tells the time
        """Start `job.attempt`, piece i on node `nodes[i]`."""
        request = start_request(job, nodes, self._snapshot(job))
        with self._lock:
            self._running.setdefault(
                (job.id, job.attempt),
                {"job": job.id, "attempt": job.attempt, "grace": request["grace"], "began": False, "stop": None},
            )
            self._order(request)

    def stop(self, job: Job, grace: float, now: float) -> None:  # noqa: ARG002 - the gateway tells the time
        """SIGTERM, `grace` seconds, then the whole tree is killed."""
        with self._lock:
            item = self._running.get((job.id, job.attempt))
            if item is not None:
                item["stop"] = grace if item["stop"] is None else min(grace, item["stop"])
            self._order({"op": "stop", "job": job.id, "attempt": job.attempt, "grace": grace})

    def adopt(self, jobs: list[Job], now: float) -> None:  # noqa: ARG002 - the gateway tells the time
        """Find again what runs for these jobs; stop what runs for none."""
        with self._lock:
            self._running = {}
            for job in jobs:
                grace = job.spec.checkpoint.patience if job.spec is not None else 60.0
                ending = job.state in {State.STOPPING, State.PREEMPTING}
                self._running[job.id, job.attempt] = {
                    "job": job.id,
                    "attempt": job.attempt,
                    "grace": grace,
                    "began": job.state is not State.STARTING,
                    "stop": grace if ending else None,
                }
            self._adopted = True
            self._term = self._term_now()
            # Of an engine before: what is not to be started any more is not.
            self._outbox = [order for order in self._outbox if (order["job"], order["attempt"]) in self._running]
            self._order(self._adopt_order())

    def forgive(self, node: str) -> None:
        """An administrator trusts a node again: what is remembered of its GPUs is forgotten; what shows counts."""
        with self._lock:
            self._order({"op": "forgive", "node": node})

    def close(self) -> None:
        """End the gateway. What runs goes on."""
        self._closed = True
        self._changed.set()
        with self._lock:
            gateway = self._gateway
        if gateway is not None:
            gateway.kill()
        self._thread.join(10)
        self._fail_logs(lambda _due: True)

    # ---- beyond the protocol

    def read_log(
        self,
        job_id: int,
        attempt: int,
        rank: int,
        offset: int,
        limit: int = 1 << 20,
        *,
        node: str = "",
    ) -> Future[tuple[bytes, int]]:
        """A rank's output from byte `offset` on, at most `limit` bytes.

        Args:
            job_id: the job.
            attempt: its attempt.
            rank: 0 to pieces - 1.
            offset: first byte; negative counts from the end.
            limit: most bytes to return.
            node: name of the node it runs or ran on (STARTED's `ranks[i]["node"]`); without it all nodes are asked once
                the attempt has ended.

        Returns:
            A future of (bytes, size of the whole log in bytes). It fails with UnreachableError when Ray does not answer
            in time, with NotFoundError when there is no such log (yet), or its node is gone.
        """
        future: Future[tuple[bytes, int]] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if not self._greeted or self._gateway is None:
                future.set_exception(UnreachableError(f"the log is on the cluster, and {self._why or 'Ray is away'}"))
                return future
            number = next(self._log_ids)
            self._logs[number] = future, time.monotonic() + LOG_WITHIN
            self._gateway.send(
                {
                    "op": "log",
                    "id": number,
                    "job": job_id,
                    "attempt": attempt,
                    "rank": rank,
                    "offset": offset,
                    "limit": limit,
                    "node": node,
                }
            )
        return future

    def samples(self) -> list[dict[str, Any]]:
        """The node agents' raw samples that came since the last call, oldest first."""
        with self._lock:
            samples, self._samples = self._samples, []
        return samples

    def links(self) -> dict[str, str]:
        """Where Ray's own pages are; empty = not known.

        `dashboard`; `job`: this control plane in its Jobs page; `token`: the file with the token that it asks for.
        """
        with self._lock:
            return dict(self._links)

    def alive(self) -> str:
        """How the connection stands, in words: empty = it works."""
        with self._lock:
            return self._why

    # ---- the gateway's keeper

    def _order(self, order: dict[str, Any]) -> None:
        """Send now, or once there is a gateway. Call with the lock held."""
        if self._gateway is not None and self._greeted:
            self._gateway.send(order)
        elif order["op"] == "start":
            self._outbox.append(order)
        # A gateway that comes gets `adopt` with all the stops; only starts must wait for it one by one.

    def _adopt_order(self) -> dict[str, Any]:
        waiting = {(order["job"], order["attempt"]) for order in self._outbox}
        attempts = [item for key, item in self._running.items() if key not in waiting]
        return {"op": "adopt", "attempts": attempts, "grace": 60.0, "term": self._term}

    def _keep(self) -> None:
        """Have a gateway running, always."""
        failures = 0
        while not self._closed:
            with self._lock:
                address = self._address
            if address is None:
                self._changed.wait()
                self._changed.clear()
                continue
            own = local.running(self._state)
            self._token_file = own.token_file if own is not None and own.address == address else ""
            gateway = Gateway(self._state / "gateway.log", address, self._token_file)
            with self._lock:
                self._gateway, self._greeted = gateway, False
            gateway.send({**self._connect_order, "address": address})
            why = self._serve(gateway)
            gateway.kill()
            with self._lock:
                failures = 0 if self._greeted else failures + 1
                self._gateway, self._greeted = None, False
                if self._address == address:
                    self._why = why
            self._fail_logs(lambda _due: True)
            if not self._closed and self._address == address:
                self._changed.wait(PAUSES[min(failures, len(PAUSES) - 1)])
                self._changed.clear()

    def _serve(self, gateway: Gateway) -> str:
        """Listen to one gateway until it ends or must be ended. Returns why, in words."""
        heard = pinged = time.monotonic()
        within = CONNECT_WITHIN
        why = ""
        while not self._closed:
            message = gateway.receive(0.5)
            now = time.monotonic()
            if message is not None:
                heard = now
                kind = message["type"]
                if kind == "end":
                    return why or f"the connection to Ray ended (exit {message['code']}); see {self._state}/gateway.log"
                if kind == "fatal":
                    why = self._last_words(message)
                elif kind == "pong":
                    if message["silent"] > RAY_SILENT:
                        return f"Ray has not answered for {message['silent']:.0f} s"
                    late = message["silent"] > RAY_LATE
                    self._set_why(f"Ray has not answered for {message['silent']:.0f} s" if late else "")
                else:
                    if kind == "hello":
                        within = PONG_WITHIN
                        self._greet(gateway, message)
                    self._take(message)
            if now - heard > within:
                return f"the gateway to Ray has not answered for {within:.0f} s"
            if self._greeted and now - pinged > PING_EVERY:
                gateway.send({"op": "ping"})
                pinged = now
                self._fail_logs(lambda due, now=now: due < now)  # type: ignore[misc] # mypy cannot infer a lambda's default
        return "closed"

    def _last_words(self, message: dict[str, Any]) -> str:
        """Why a gateway ends. If another control plane leads, the next one only looks on, until `adopt`."""
        if message.get("superseded"):
            with self._lock:
                self._adopted, self._running, self._outbox = False, {}, []
            self._on_news()
        why: str = message["message"]
        return why

    def _set_why(self, why: str) -> None:
        with self._lock:
            self._why = why

    def _greet(self, gateway: Gateway, hello: dict[str, Any]) -> None:
        """A gateway is connected: tell it what should run, then what waited for it."""
        with self._lock:
            self._events += self._again(hello["session"])
            self._session = hello["session"]
            self._links = hello["links"]
            if self._token_file and self._links:
                self._links["token"] = self._token_file
            self._why = ""
            self._greeted = True
            if self._adopted or self._running:
                gateway.send(self._adopt_order())
            for order in self._outbox:
                gateway.send(order)
            for order in self._outbox:
                item = self._running.get((order["job"], order["attempt"]))
                if item is not None and item["stop"] is not None:
                    gateway.send(
                        {"op": "stop", "job": order["job"], "attempt": order["attempt"], "grace": item["stop"]}
                    )
            self._outbox = []

    def _again(self, session: str) -> list[Event]:
        """What the journal gets of a connection that is not the first one."""
        if not self._session:
            return []
        what = f"connected to Ray again ({self._why})"
        if session != self._session:
            what = "Ray's head has begun anew and knows nothing of before: what ran there is lost"
        return [Event(self._at(time.monotonic()), Kind.PLANE, 0, 0, {"what": what})]

    def _take(self, message: dict[str, Any]) -> None:
        """Keep what the gateway reports until it is polled."""
        kind = message["type"]
        if kind == "log":
            self._answer_log(message)
            return
        with self._lock:
            if kind == "nodes":
                self._take_nodes(message)
            elif kind == "event":
                self._take_event(message)
            elif kind == "sample":
                self._samples.append(message["sample"])
        # What changes no state waits for the next turn: a thousand jobs that report shall not cause a thousand turns.
        if kind != "hello" and message.get("kind") not in NOTES:
            self._on_news()

    def _take_nodes(self, message: dict[str, Any]) -> None:
        now = {fields["name"]: node_of(fields) for fields in message["nodes"]}
        time = self._at(message["at"])
        for name, node in self._nodes.items():
            if name not in now:
                self._node_news.append(NodeChange(time, node, gone=True))
        for name, node in now.items():
            if self._nodes.get(name) != node:
                self._node_news.append(NodeChange(time, node))
        self._nodes = now

    def _take_event(self, message: dict[str, Any]) -> None:
        key = message["job"], message["attempt"]
        kind = Kind(message["kind"])
        if kind is Kind.STARTED:
            if key in self._running:
                self._running[key]["began"] = True
        elif kind not in NOTES:
            self._running.pop(key, None)
        self._events.append(Event(self._at(message["at"]), kind, *key, message["data"]))

    def _answer_log(self, message: dict[str, Any]) -> None:
        with self._lock:
            future, _due = self._logs.pop(message["id"], (None, 0.0))
        if future is None:
            return
        if "error" in message:
            future.set_exception(NotFoundError(message["error"]))
        else:
            future.set_result((base64.b64decode(message["data"]), message["size"]))

    def _fail_logs(self, which: Callable[[float], bool]) -> None:
        with self._lock:
            late = [number for number, (_future, due) in self._logs.items() if which(due)]
            futures = [self._logs.pop(number)[0] for number in late]
        for future in futures:
            future.set_exception(UnreachableError("the cluster did not send the log in time"))


def node_of(fields: dict[str, Any]) -> Node:
    """A node as the gateway tells it."""
    return Node(**{**fields, "fenced": tuple((index, why) for index, why in fields["fenced"])})


def identity(state: Path) -> str:
    """Who this control plane is on a cluster: made once, kept in its state directory."""
    path = state / "identity"
    state.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text().strip()
