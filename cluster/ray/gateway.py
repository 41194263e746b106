"""The gateway: the only Ray driver of the control plane; gateway_process.py starts it.

Speaks JSON, one object a line, over the standard input and output that it was started with; Ray's own output goes to
standard error. It may hang or be killed at any moment (Ray aborts its drivers when the head goes away), so it remembers
nothing that its successor could not find again: placement groups and Runners are detached and found by name.

In: `connect` first, then start, stop, adopt, forgive, log, ping. Out: hello, nodes, event, log, sample, pong, fatal.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import ray
from ray._raylet import PlacementGroupID
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup, placement_group_table

from ...jobs import sdk
from . import agent, endings, fences, gpu_use, gpu_watch, node_agent, node_health, runner, terms
from .fences import Fences
from .gang import Gang, find_runner
from .keeper import Keeper
from .nodes import AGENT, Agents, RayNode, read_nodes
from .ranks import JOB_MODULE, TRAIN_MODULE
from .runner import ENDINGS, HELD, NAMESPACE, SUPERVISOR
from .terms import SupersededError

NODES_EVERY = 1.0
ARRIVES_WITHIN = 10.0
"""Seconds for a workdir to come: a control plane that has just taken over may be fetching it still."""
ARCHIVES = 8
"""Workdirs kept in the object store."""
LAUNCHES_WITHIN = 20.0
"""Seconds for what is being launched to be taken back when another control plane leads."""
LINE = 1 << 26


class Gateway:
    """Carries out orders and reports. Lives on one asyncio loop; Ray's blocking calls get threads."""

    def __init__(self, order: dict[str, Any], out: BinaryIO) -> None:
        self.owner: str = order["owner"]
        self.scratch: str = order["scratch"]
        self.term = 0  # that of the control plane, once it has said what should run
        here = Path(__file__).parent
        self.files = {
            SUPERVISOR: (here / "supervisor.py").read_text(),
            ENDINGS: (here / "endings.py").read_text(),
            f"{TRAIN_MODULE}.py": (here / "train_callback.py").read_text(),
            f"{JOB_MODULE}.py": Path(sdk.__file__).read_text(),
        }
        self.address = ray.get_runtime_context().gcs_address
        self._out = out
        self._threads = ThreadPoolExecutor(64, "ray")
        self._gangs: dict[tuple[int, int], Gang] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._launches: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._nodes: dict[str, RayNode] = {}
        self._names: dict[str, str] = {}
        self._archives: dict[str, Any] = {}
        self._gone: dict[str, asyncio.Event] = {}
        self._answered = time.monotonic()
        self._ready = asyncio.Event()
        limits = order["health"]
        self._agents = Agents(self.call, self._sample, order["sample_every"], self.scratch, limits, self._sampled)
        fenced = Fences(self.call)
        self.keeper = Keeper(self.owner, limits, self._agents, fenced, self._holders, self._tell_nodes)
        self._settling: asyncio.Task[None] | None = None
        self._told: dict[str, dict[str, Any]] | None = None

    # ---- what a gang needs

    async def still_leads(self) -> None:
        """Raise SupersededError if another control plane has taken over; see terms.py for when to ask."""
        if self.term and await self.call(terms.newest, self.owner) > self.term:
            raise SupersededError

    async def call(self, function: Callable[..., Any], *args: Any, within: float = 30.0) -> Any:  # noqa: ANN401 - as the function returns
        """Run a blocking Ray call in a thread. TimeoutError: it hangs; its thread is given up."""
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self._threads, function, *args), within)

    def node_id(self, name: str) -> str | None:
        """Ray's present NodeID of a node; None when it isn't there."""
        node = self._nodes.get(name)
        return node.node_id if node else None

    def node_name(self, node_id: str) -> str:
        """Our name of a node, also of one that is gone."""
        return self._names.get(node_id, node_id)

    def node_alive(self, node_id: str) -> bool:
        """Whether Ray counts the node as alive."""
        return any(node.node_id == node_id for node in self._nodes.values())

    def node_gone(self, node_id: str) -> asyncio.Event:
        """Set once Ray counts the node as dead."""
        event = self._gone.setdefault(node_id, asyncio.Event())
        if not self.node_alive(node_id):
            event.set()
        return event

    async def archive(self, path: str | None) -> Any:  # noqa: ANN401 - an ObjectRef, which Ray does not type
        """The workdir in Ray's object store, put there once; None = there is none."""
        if path is None:
            return None
        if path not in self._archives:
            end = time.monotonic() + ARRIVES_WITHIN
            while not await asyncio.to_thread(Path(path).exists) and time.monotonic() < end:  # noqa: ASYNC110 - the file is another process's
                await asyncio.sleep(0.2)
            self._archives[path] = await self.call(lambda: ray.put(Path(path).read_bytes()), within=300)
            while len(self._archives) > ARCHIVES:
                del self._archives[next(iter(self._archives))]
        return self._archives[path]

    async def outcome(self, job: int, attempt: int) -> dict[int, dict[str, Any]]:
        """Results by rank that the nodes have on disk."""
        answers = await self._agents.ask(None, "outcome", (self.scratch, self.owner), (job, attempt))
        return {rank: result for answer in answers for rank, result in answer.items()}

    def emit(self, kind: str, job: int, attempt: int, data: dict[str, Any]) -> None:
        """Report an event, with the time by a clock that nobody sets and that is the same for the reader."""
        self.send({"type": "event", "kind": kind, "job": job, "attempt": attempt, "at": time.monotonic(), "data": data})

    def send(self, message: dict[str, Any]) -> None:
        """Write one line. The reader is our own control plane, which always reads."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()

    def _sample(self, node_id: str, sample: dict[str, Any]) -> None:
        self.keeper.sampled(node_id, sample)
        self.send({"type": "sample", "sample": sample})

    async def _sampled(self, node_id: str) -> None:
        await self.keeper.compare_clocks(node_id)

    def _holders(self) -> list[tuple[tuple[int, int], set[tuple[str, int]]]]:
        return [(key, gang.gpus) for key, gang in self._gangs.items()]

    def _tell_nodes(self) -> None:
        """Report the nodes if they are not as they were told."""
        now = {name: self.keeper.facts(node.node_id, node.facts) for name, node in self._nodes.items()}
        if now != self._told and self._ready.is_set():
            self.send({"type": "nodes", "at": time.monotonic(), "nodes": list(now.values())})
            self._told = now

    # ---- the loops

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve until the control plane closes its end."""
        self._spawn(self._watch_nodes())
        await self._ready.wait()
        while line := await orders.readline():
            order = json.loads(line)
            await getattr(self, "_do_" + order["op"])(order)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run on the side. A fault there ends the gateway: the next one finds everything again by name."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                if isinstance(error, SupersededError):
                    if self._leaving is None:
                        self._leaving = asyncio.create_task(self._leave())
                    return
                self.send({"type": "fatal", "message": f"{type(error).__name__}: {error}"})
                asyncio.get_running_loop().call_exception_handler({"message": "a task failed", "exception": error})
                sys.stderr.flush()
                os._exit(1)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)
        return task

    async def _leave(self) -> None:
        """Another control plane leads. What is being launched finds that out, too, and takes its GPUs back first."""
        launching = [task for key, task in self._launches.items() if not self._gangs[key].begun]
        if launching:
            await asyncio.wait(launching, timeout=LAUNCHES_WITHIN)
        self.send({"type": "fatal", "message": "another control plane leads", "superseded": True})
        os._exit(0)

    async def _watch_nodes(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                self._nodes = read_nodes(await self.call(ray.nodes))
                self._answered = time.monotonic()
                await self.still_leads()
                self._names.update({node.node_id: node.name for node in self._nodes.values()})
                for gone in self._gone.keys() - {node.node_id for node in self._nodes.values()}:
                    self._gone.pop(gone).set()
                node_ids = {node.node_id for node in self._nodes.values()}
                self.keeper.follow(node_ids)
                self._agents.follow(self._nodes)
                if not self._ready.is_set():  # before anything is placed
                    await self.keeper.recover()
                    await self.keeper.heard(await self.call(agents_on, node_ids))
                    self._ready.set()
                self._tell_nodes()
                if self._settling is None or self._settling.done():
                    self._settling = self._spawn(self.keeper.settle(node_ids))
            await asyncio.sleep(NODES_EVERY)

    # ---- the orders

    async def _do_ping(self, _order: dict[str, Any]) -> None:
        self.send({"type": "pong", "silent": time.monotonic() - self._answered})

    async def _do_start(self, order: dict[str, Any]) -> None:
        key = gang_key(order)
        if key in self._gangs:
            self._gangs[key].repeat()
        else:
            self._gangs[key] = gang = Gang(self, order)
            self._launches[key] = self._spawn(self._see_through(gang, gang.launch()))

    async def _see_through(self, gang: Gang, work: Coroutine[Any, Any, None]) -> None:
        """Let an attempt run its course. A fault in it is that attempt's loss and nobody else's."""
        try:
            await work
        except SupersededError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the control plane must hear how the attempt ended
            traceback.print_exc()
            await self.still_leads()
            await gang.abandon(f"the gateway to Ray failed on it: {type(error).__name__}: {error}")
        self._gangs.pop((gang.job, gang.attempt), None)
        self._launches.pop((gang.job, gang.attempt), None)

    async def _do_stop(self, order: dict[str, Any]) -> None:
        gang = self._gangs.get(gang_key(order))
        if gang is not None:
            self._spawn(gang.stop(order["grace"]))
        else:
            self.emit("finished", order["job"], order["attempt"], {"exit_code": 143, "message": "it does not run"})

    async def _do_adopt(self, order: dict[str, Any]) -> None:
        self.term = max(self.term, order.get("term", 0))
        if self.term:
            await self.call(terms.begin, self.owner, self.term)
        groups, runners = await self.call(leftovers, self.owner, within=60)
        await self.still_leads()  # after the list: it holds nothing that a newer term began
        ours = {(item["job"], item["attempt"]): item for item in order["attempts"]}
        for key, item in ours.items():
            if key in self._gangs:
                self._gangs[key].repeat()
                continue
            self._gangs[key] = gang = Gang(self, item)
            gang.stop_grace = item["stop"]
            group = groups.get(key)
            if group is not None:
                gang.name = group[2]
            handles = await self.call(find_runners, gang.name, len(group[1]), runners) if group else []
            self._spawn(self._see_through(gang, gang.attach(group[0] if group else None, handles, began=item["began"])))
        for key in groups.keys() - ours.keys() - self._gangs.keys():
            self._spawn(self._clear(key, groups[key], runners, order["grace"]))
        await self.keeper.begin()

    async def _clear(
        self, key: tuple[int, int], group: tuple[PlacementGroup, list[Any], str], names: set[str], grace: float
    ) -> None:
        """Stop what runs for nobody any more. What another control plane runs is left alone."""
        handles = await self.call(find_runners, group[2], len(group[1]), names)
        facts = await asyncio.gather(*(describe(handle) for handle in handles))
        if any(fact is not None and fact["owner"] != self.owner for fact in facts):
            return
        gang = Gang(self, {"job": key[0], "attempt": key[1], "grace": grace})
        gang.name = group[2]
        gang.facts = [fact for fact in facts if fact is not None]
        await self.still_leads()
        await gang.clear(group[0], [handle if fact else None for handle, fact in zip(handles, facts, strict=True)])

    async def _do_forgive(self, order: dict[str, Any]) -> None:
        node_id = self.node_id(order["node"])
        if node_id is not None:
            self._spawn(self.keeper.forgive(node_id))

    async def _do_log(self, order: dict[str, Any]) -> None:
        self._spawn(self._read_log(order))

    async def _read_log(self, order: dict[str, Any]) -> None:
        """From the Runner while it lives, else from the node's disk."""
        part, error = None, "there is no such log"
        where = order["rank"], order["offset"], order["limit"]
        gang = self._gangs.get(gang_key(order))
        try:
            if gang is not None and where[0] < len(gang.runners) and gang.runners[where[0]] is not None:
                part = await asyncio.wait_for(gang.read_log(*where), 10)
        except (RayError, TimeoutError):
            part = None
        if part is None:
            node_id = self.node_id(order["node"]) if order["node"] else None
            if order["node"] and node_id is None:
                error = f"node {order['node']} is gone, and the log with it"
            else:
                rank = (*gang_key(order), where[0])
                answers = await self._agents.ask(node_id, "read_log", (self.scratch, self.owner), rank, where[1:])
                part = next((answer for answer in answers if answer is not None), None)
        if part is None:
            self.send({"type": "log", "id": order["id"], "error": error})
        else:
            data = base64.b64encode(part[0]).decode()
            self.send({"type": "log", "id": order["id"], "data": data, "size": part[1]})


def agents_on(node_ids: set[str]) -> set[str]:
    """Those of the nodes on which an agent runs already. Blocks."""
    names = set(ray.util.list_named_actors())
    return {node_id for node_id in node_ids if f"{AGENT}{node_id}" in names}


def gang_key(order: dict[str, Any]) -> tuple[int, int]:
    """Which attempt an order is about."""
    return order["job"], order["attempt"]


async def describe(handle: Any) -> dict[str, Any] | None:  # noqa: ANN401 - an ActorHandle, which Ray does not type
    """What a Runner says of itself; None when it is gone."""
    if handle is None:
        return None
    try:
        facts: dict[str, Any] = await asyncio.wait_for(asyncio.ensure_future(handle.describe.remote()), 30)
    except (RayActorError, TimeoutError):
        return None
    return facts


def leftovers(owner: str) -> tuple[dict[tuple[int, int], tuple[PlacementGroup, list[Any], str]], set[str]]:
    """Our placement groups by (job, attempt), each with its bundles and name, and the names of our actors. Blocks."""
    groups = {}
    for group_id, row in placement_group_table().items():
        kind, *key = row["name"].split(":")
        # Up to version 0.3 the name was gs:<job>:<attempt>, and only a Runner knew whose it was.
        if kind != "gs" or row["state"] == "REMOVED" or ((len(key), key[0]) != (3, owner) and len(key) != 2):  # noqa: PLR2004 - as above
            continue
        job, attempt = map(int, key[-2:])
        bundles = list(row["bundles"].values())
        groups[job, attempt] = PlacementGroup(PlacementGroupID.from_hex(group_id)), bundles, row["name"]
    return groups, set(ray.util.list_named_actors())


def find_runners(group: str, count: int, names: set[str]) -> list[Any]:
    """Handles of an attempt's Runners by rank, None where there is none. Blocks."""
    found = []
    for rank in range(count):
        name = f"{group}:{rank}"
        known = name if name in names else name + HELD if name + HELD in names else None
        found.append(find_runner(known) if known else None)
    return found


def connect(order: dict[str, Any]) -> dict[str, Any]:
    """Become a driver of the cluster; blocks, for minutes when nothing answers. Returns the greeting."""
    # The classes travel by value, so that nodes need nothing of ours installed.
    for module in (runner, endings, agent, node_health, gpu_watch, gpu_use, node_agent, fences):
        ray.cloudpickle.register_pickle_by_value(module)
    context = ray.init(
        address=order["address"],
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
    )
    url = context.dashboard_url
    links = {}
    if url:
        links["dashboard"] = f"http://{url}"
        links["job"] = f"http://{url}/#/jobs/{ray.get_runtime_context().get_job_id()}"
    session = Path(context.address_info["session_dir"]).name
    return {"type": "hello", "links": links, "ray": ray.__version__, "session": session}


async def serve(order: dict[str, Any], source: BinaryIO, out: BinaryIO) -> None:
    """Serve the control plane at the other ends of `source` and `out`."""
    reader = asyncio.StreamReader(limit=LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    await Gateway(order, out).run(reader)


def main() -> None:
    """Take the pipe away from Ray, which prints; connect; serve; leave without waiting for threads that hang."""
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    first = b""
    while not first.endswith(b"\n"):
        piece = source.read(1)
        if not piece:
            return
        first += piece
    order = json.loads(first)
    try:
        greeting = connect(order)
    except Exception as error:  # noqa: BLE001 - whatever Ray raises is for the user to read, on the other side
        out.write(
            json.dumps({"type": "fatal", "message": f"cannot connect to Ray at {order['address']}: {error}"}).encode()
            + b"\n"
        )
        out.flush()
        os._exit(1)
    out.write(json.dumps(greeting).encode() + b"\n")
    out.flush()
    asyncio.run(serve(order, source, out))
    os._exit(0)
