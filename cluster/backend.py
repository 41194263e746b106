"""The one door between the engine and a cluster, live or simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..jobs.events import Event
from ..jobs.job import Job


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, as it is known to policies.

    Attributes:
        name: the host's own lasting name (not Ray's NodeID, which is new after every restart).
        gpus: GPUs that jobs may use; fenced ones are not among them.
        gpu_type: such as H100; empty = not known.
        cpu_milli: thousandths of a CPU; memory: bytes. Both are what jobs may use.
        labels: the node's labels, such as rack or zone.
        address: IP address that other nodes reach it by; empty in a simulation.
        schedulable: False while it is cordoned, draining or not healthy; why says which, in words.
        fenced: GPUs that are kept from jobs, each alone: (index, why in words).
        closes: UTC seconds by which what runs there is gone: a drain's deadline, or the start of a maintenance window;
            None = nothing of that kind is known.
        lead: seconds before `closes` from which no job starts there that does not say how long it runs.
        orders: what administrators want of it, by kind (cordon, drain, maintenance), as JSON values; see
            scheduler/node_orders.py.
    """

    name: str
    gpus: int
    gpu_type: str = ""
    cpu_milli: int = 0
    memory: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    schedulable: bool = True
    why: str = ""
    fenced: tuple[tuple[int, str], ...] = ()
    closes: float | None = None
    lead: float = 0.0
    orders: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node came, changed or went.

    Attributes:
        node: how it is now. gone: it left the cluster.
        by: who asked for the change; empty = nobody did.
    """

    time: float
    node: Node
    gone: bool = False
    by: str = ""


class News(NamedTuple):
    """What a backend reports at one poll: first what happened to nodes, then what happened to attempts."""

    nodes: Sequence[NodeChange] = ()
    events: Sequence[Event] = ()


class Backend(Protocol):
    """Runs attempts and says what became of them. No call blocks; every call may be repeated without harm.

    An attempt is named by (job id, attempt number). The backend reports for each attempt that it was asked to start
    either REFUSED (nothing ran), or STARTED and then exactly one of FINISHED and VANISHED; a FINISHED may come
    without a STARTED before it. Reports carry the backend's own time. A report may come twice: the engine's table of
    moves makes the second one harmless. While an attempt runs there may be notes of it (`jobs.events.NOTES`).

    Details in `Event.data` (live): STARTED: {"ranks": [{"rank", "node", "address", "gpus": [indices], "pid", "log"}]};
    FINISHED: {"exit_code": the first failing rank's code or 0 (128 + n for signal n), "failed_rank", "message"};
    VANISHED and REFUSED: {"message": in words}; PLANE (of job 0; what became
    of the connection): {"what": in words}; CHECKPOINTED: {"step", "time": when it was saved}; PROGRESSED:
    {"fraction"}. FINISHED and VANISHED carry the last "checkpoint" as CHECKPOINTED does, if there was one.
    """

    def poll(self, now: float) -> News:
        """What happened since the last poll, in order of time."""
        ...

    def next_time(self) -> float | None:
        """When the next news is due, if the backend knows (a simulation does); None = not known."""
        ...

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        """Start `job.attempt` of `job`, piece i of `job.placement` on node `nodes[i]`, all or nothing."""
        ...

    def stop(self, job: Job, grace: float, now: float) -> None:
        """End `job.attempt`: SIGTERM to each rank's main process, `grace` seconds, then the whole tree is killed.

        FINISHED follows when the last process is gone; REFUSED, if it was refused meanwhile. Stopping what does not
        run, or never ran, reports FINISHED too, with an exit code that is not 0: nothing of it succeeded.
        """
        ...

    def adopt(self, jobs: list[Job], now: float) -> None:
        """After a restart: these hold GPUs by the store's account. Report STARTED, FINISHED or VANISHED for each.

        REFUSED for one that was written as placed and never started, because who should have asked for it died before.
        Attempts that run but are not named here are not ours any more: they are stopped.
        """
        ...

    def close(self) -> None:
        """Let go of the cluster. What runs goes on."""
        ...
